{#- The router's choice (spec 3.1), a workgroup of 64 per token. -#}
struct Params {
    num_groups: u32,
    top_groups: u32,
    norm_topk_prob: u32,
    scaling_factor: f32,
}
const NONE = 0xffffffffu;
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;
@group(0) @binding(4) var<uniform> P: Params;

var<workgroup> scores: array<f32, {{ EXPERTS }}>;
// What the selection compares: biased where the router has a bias, lowest in rejected groups and once chosen.
var<workgroup> choice: array<f32, {{ EXPERTS }}>;
var<workgroup> group_scores: array<f32, {{ GROUPS }}>;
var<workgroup> best_values: array<f32, 64>;
var<workgroup> best_ids: array<u32, 64>;
const LOWEST = -3.4028234e38;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32{{ sub_arguments() }}) {
    let row = group.x * {{ EXPERTS }}u;
{% if SOFTMAX %}
    var largest = LOWEST;
    for (var e = lane; e < {{ EXPERTS }}u; e += 64u) {
        largest = max(largest, logits[row + e]);
    }
    largest = reduce_max(largest, lane, {{ SUB }});
    var sum = 0.0;
    for (var e = lane; e < {{ EXPERTS }}u; e += 64u) {
        scores[e] = exp(logits[row + e] - largest);
        sum += scores[e];
    }
    sum = reduce_sum(sum, lane, {{ SUB }});
    for (var e = lane; e < {{ EXPERTS }}u; e += 64u) {
        scores[e] /= sum;
        choice[e] = scores[e];
    }
{% else %}
    for (var e = lane; e < {{ EXPERTS }}u; e += 64u) {
        scores[e] = 1.0 / (1.0 + exp(-logits[row + e]));
        choice[e] = scores[e] + bias[e];
    }
{% endif %}
    workgroupBarrier();
{% if GROUPS > 1 %}
    let size = {{ EXPERTS }}u / P.num_groups;
    for (var g = lane; g < P.num_groups; g += 64u) {
        var first = LOWEST;
        var second = LOWEST;
        for (var e = g * size; e < (g + 1u) * size; e++) {
            second = max(second, min(first, choice[e]));
            first = max(first, choice[e]);
        }
        group_scores[g] = {{ "first" if SOFTMAX else "first + second" }};
    }
    workgroupBarrier();
    // A group is kept when fewer than top_groups come before it; equal ones in order.
    for (var e = lane; e < {{ EXPERTS }}u; e += 64u) {
        let mine = e / size;
        var before = 0u;
        for (var g = 0u; g < P.num_groups; g++) {
            let better = group_scores[g] > group_scores[mine] || (group_scores[g] == group_scores[mine] && g < mine);
            before += select(0u, 1u, better);
        }
        if (before >= P.top_groups) {
            choice[e] = LOWEST;
        }
    }
    workgroupBarrier();
{% endif %}
    var sum_of_weights = 0.0;
    for (var k = 0u; k < {{ TOP_K }}u; k++) {
        var best = LOWEST;
        var id = NONE;
        for (var e = lane; e < {{ EXPERTS }}u; e += 64u) {
            if (choice[e] > best) {
                best = choice[e];
                id = e;
            }
        }
        best_values[lane] = best;
        best_ids[lane] = id;
        workgroupBarrier();
{% for half in [32, 16, 8, 4, 2, 1] %}
        if (lane < {{ half }}u) {
            let value = best_values[lane + {{ half }}u];
            let other = best_ids[lane + {{ half }}u];
            if (value > best_values[lane] || (value == best_values[lane] && other < best_ids[lane])) {
                best_values[lane] = value;
                best_ids[lane] = other;
            }
        }
        workgroupBarrier();
{% endfor %}
        let chosen = min(best_ids[0], {{ EXPERTS - 1 }}u);
        sum_of_weights += scores[chosen];
        workgroupBarrier();
        if (lane == 0u) {
            choice[chosen] = LOWEST;
            ids[group.x * {{ TOP_K }}u + k] = chosen;
            weights[group.x * {{ TOP_K }}u + k] = scores[chosen];
        }
        workgroupBarrier();
    }
    storageBarrier();
    if (lane == 0u) {
        let divisor = select(1.0, sum_of_weights + 1e-20, P.norm_topk_prob != 0u);
        for (var k = 0u; k < {{ TOP_K }}u; k++) {
            weights[group.x * {{ TOP_K }}u + k] = weights[group.x * {{ TOP_K }}u + k] / divisor * P.scaling_factor;
        }
    }
}
