{#- Causal attention of RM query rows over the paged latent cache, absorbed form: keys are whole latents, values their
    first kv_lora_rank columns, and all heads share them. A row is a (token, head) pair; rows of a sequence follow each
    other. One workgroup of LANES walks over its split of the positions, LANES at a time, with a running softmax.
    With SHARE > 0 the lanes of a subgroup of exactly that size load what all of them need once and broadcast it. -#}
struct Params {
    num_heads: u32,
    num_rows: u32,
    latent_width: u32,
    kv_lora_rank: u32,
    block_size: u32,
    max_blocks: u32,
    num_splits: u32,
    softmax_scale: f32,
    // Tile of the first workgroup.
    first_tile: u32,
}
{% set T = "vec4<f32>" if VEC else "f32" %}
// [T, N, Lkv + R]
@group(0) @binding(0) var<storage, read> queries: array<{{ T }}>;
@group(0) @binding(1) var<storage, read> cache: array<{{ T }}>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> block_table: array<u32>;
@group(0) @binding(4) var<storage, read> seq_lens: array<u32>;
@group(0) @binding(5) var<storage, read> query_start_loc: array<u32>;
// [splits, T, N, Lkv]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
{% if SPLIT %}
// Largest score and sum of each row, [splits, T, N].
@group(0) @binding(7) var<storage, read_write> stats: array<vec2<f32>>;
{% endif %}
@group(0) @binding({{ 8 if SPLIT else 7 }}) var<uniform> P: Params;

const LOWEST = -3.4028234e38;
var<workgroup> scores: array<f32, {{ RM * LANES }}>;
var<workgroup> slots: array<u32, {{ LANES }}>;
var<workgroup> row_max: array<f32, {{ RM }}>;

{% for name in ["queries", "cache"] %}
// Columns k to k + 3 of a row of `{{ name }}` that starts at `base`, zero past the end.
fn load_{{ name }}(base: u32, k: u32) -> vec4<f32> {
{% if VEC %}
    return select(vec4<f32>(), {{ name }}[(base + min(k, P.latent_width - 4u)) / 4u], k < P.latent_width);
{% else %}
    let last = base + P.latent_width - 1u;
    let at = vec4<u32>(base + k) + vec4<u32>(0u, 1u, 2u, 3u);
    let value = vec4<f32>({% for e in range(4) %}{{ name }}[min(at[{{ e }}], last)]{{ ", " if not loop.last }}{% endfor %});
    return select(vec4<f32>(), value, at <= vec4<u32>(last));
{% endif %}
}
{% endfor %}

{% set share = SHARE if SHARE else 1 %}
@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32{% if SHARE %}, @builtin(subgroup_invocation_id) sub_lane: u32{% endif %}) {
    let seq = group.y;
    let first_row = query_start_loc[seq] * P.num_heads;
    let num_rows = query_start_loc[seq + 1u] * P.num_heads - first_row;
    let tile = (P.first_tile + group.x) * {{ RM }}u;
    if (tile >= num_rows) {
        return;
    }
{% for i in range(RM) %}
    let row{{ i }} = first_row + min(tile + {{ i }}u, num_rows - 1u);
    let last{{ i }} = positions[row{{ i }} / P.num_heads];
    var max{{ i }} = LOWEST;
    var sum{{ i }} = 0.0;
{% for q in range(QUADS) %}
    var acc{{ i }}_{{ q }} = vec4<f32>();
{% endfor %}{% endfor %}
    let seq_len = seq_lens[seq];
    let per_split = ((seq_len + P.num_splits - 1u) / P.num_splits + {{ LANES - 1 }}u) / {{ LANES }}u * {{ LANES }}u;
    // Positions past the last row's are visible to none.
    let end = min(min((group.z + 1u) * per_split, seq_len), last{{ RM - 1 }} + 1u);
    for (var j0 = group.z * per_split; j0 < end; j0 += {{ LANES }}u) {
        let count = min({{ LANES }}u, end - j0);
        let j = min(j0 + lane, end - 1u);
        let block = block_table[seq * P.max_blocks + j / P.block_size];
        let slot = (block * P.block_size + j % P.block_size) * P.latent_width;
{% for i in range(RM) %}
        var score{{ i }} = 0.0;
{% endfor %}
        for (var k0 = 0u; k0 < P.latent_width; k0 += {{ 4 * share }}u) {
{% for i in range(RM) if SHARE %}
            let own{{ i }} = load_queries(row{{ i }} * P.latent_width, k0 + 4u * sub_lane);
{% endfor %}
{% for c in range(share) %}
            {
                let key = load_cache(slot, k0 + {{ 4 * c }}u);
{% for i in range(RM) %}
                score{{ i }} += dot({% if SHARE %}subgroupBroadcast(own{{ i }}, {{ c }}u){% else %}load_queries(row{{ i }} * P.latent_width, k0){% endif %}, key);
{% endfor %}
            }
{% endfor %}
        }
        workgroupBarrier();
        slots[lane] = slot;
{% for i in range(RM) %}
        scores[{{ i * LANES }}u + lane] = select(LOWEST, score{{ i }} * P.softmax_scale, lane < count && j <= last{{ i }});
{% endfor %}
        workgroupBarrier();
        if (lane < {{ RM }}u) {
            var largest = LOWEST;
            for (var e = 0u; e < {{ LANES }}u; e++) {
                largest = max(largest, scores[lane * {{ LANES }}u + e]);
            }
            row_max[lane] = largest;
        }
        workgroupBarrier();
{% for i in range(RM) %}
        {
            let largest = max(max{{ i }}, row_max[{{ i }}]);
            let shrink = exp(max{{ i }} - largest);
            max{{ i }} = largest;
            sum{{ i }} *= shrink;
{% for q in range(QUADS) %}
            acc{{ i }}_{{ q }} *= shrink;
{% endfor %}
            let score = scores[{{ i * LANES }}u + lane];
            // A masked position weighs nothing, also where all positions are masked.
            scores[{{ i * LANES }}u + lane] = select(0.0, exp(score - largest), score > LOWEST);
        }
{% endfor %}
        workgroupBarrier();
        for (var e0 = 0u; e0 < count; e0 += {{ share }}u) {
{% for i in range(RM) if SHARE %}
            let own{{ i }} = scores[{{ i * LANES }}u + e0 + sub_lane];
{% endfor %}
{% for c in range(share) %}
            if (e0 + {{ c }}u < count) {
{% for q in range(QUADS) %}
                let value{{ q }} = load_cache(slots[e0 + {{ c }}u], 4u * (lane + {{ q * LANES }}u));
{% endfor %}
{% for i in range(RM) %}
                {
                    let weight = {% if SHARE %}subgroupBroadcast(own{{ i }}, {{ c }}u){% else %}scores[{{ i * LANES }}u + e0]{% endif %};
                    sum{{ i }} += weight;
{% for q in range(QUADS) %}
                    acc{{ i }}_{{ q }} += weight * value{{ q }};
{% endfor %}
                }
{% endfor %}
            }
{% endfor %}
        }
    }
{% for i in range(RM) %}
    if (tile + {{ i }}u < num_rows) {
{% if SPLIT %}
        let row = group.z * P.num_rows + row{{ i }};
        let scale = 1.0;
        if (lane == 0u) {
            stats[row] = vec2<f32>(max{{ i }}, sum{{ i }});
        }
{% else %}
        let row = row{{ i }};
        let scale = 1.0 / sum{{ i }};
{% endif %}
{% for q in range(QUADS) %}
        {
            let column = 4u * (lane + {{ q * LANES }}u);
{% for e in range(4) %}
            if (column + {{ e }}u < P.kv_lora_rank) {
                out[row * P.kv_lora_rank + column + {{ e }}u] = acc{{ i }}_{{ q }}[{{ e }}] * scale;
            }
{% endfor %}
        }
{% endfor %}
    }
{% endfor %}
}
