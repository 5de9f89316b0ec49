{#- Absorption of W_UK into the queries: out[t, h, l] = sum over p of q[t, h, p] W[h (P + V) + p, l]. A lane owns four
    latent columns of RM tokens; a weight row is read across the lanes. Needs weights.wgsl before it. -#}
struct Params {
    num_tokens: u32,
    num_heads: u32,
    nope_dim: u32,
    // Elements between tokens and heads of q.
    q_row: u32,
    q_head: u32,
    // Columns of W and of a row of the latent queries.
    kv_lora_rank: u32,
    latent_width: u32,
    // Rows of W between heads.
    w_head: u32,
    w_row: u32,
    scale_row: u32,
    scale_group: u32,
}
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read_write> queries: array<f32>;
@group(0) @binding(4) var<uniform> P: Params;

@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = 4u * (group.x * {{ LANES }}u + lane);
    // Lanes past the last column compute one again; they take part in the broadcasts.
    let k = min(column, (P.kv_lora_rank - 1u) / 4u * 4u);
    let head = group.z;
{% for i in range(RM) %}
    let q{{ i }} = min(group.y * {{ RM }}u + {{ i }}u, P.num_tokens - 1u) * P.q_row + head * P.q_head;
    var sum{{ i }} = vec4<f32>();
{% endfor %}
{% if SHARE %}{% set step = SHARE %}{% else %}{% set step = 1 %}{% endif %}
    for (var p0 = 0u; p0 < P.nope_dim; p0 += {{ step }}u) {
{% for i in range(RM) if SHARE %}
        let own{{ i }} = q[q{{ i }} + min(p0 + lane, P.nope_dim - 1u)];
{% endfor %}
{% for e in range(step) %}
        if (p0 + {{ e }}u < P.nope_dim) {
            let row = head * P.w_head + p0 + {{ e }}u;
            let chunk = w[row * P.w_row + k / {{ CHUNK }}u];
            let value = {{ quad_at("chunk", "k") }} * {{ scale_of("row", "k") }};
{% for i in range(RM) %}
            sum{{ i }} += {% if SHARE %}subgroupBroadcast(own{{ i }}, {{ e }}u){% else %}q[q{{ i }} + p0]{% endif %} * value;
{% endfor %}
        }
{% endfor %}
    }
{% for i in range(RM) %}
    if (group.y * {{ RM }}u + {{ i }}u < P.num_tokens) {
        let out = ((group.y * {{ RM }}u + {{ i }}u) * P.num_heads + head) * P.latent_width + column;
{% for e in range(4) %}
        if (column + {{ e }}u < P.kv_lora_rank) {
            queries[out + {{ e }}u] = sum{{ i }}[{{ e }}];
        }
{% endfor %}
    }
{% endfor %}
}
