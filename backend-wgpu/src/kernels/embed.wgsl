{#- Rows of the embedding table that lie in this slab of it. Needs weights.wgsl before it. -#}
struct Params {
    num_tokens: u32,
    cols: u32,
    // Rows of the table in this slab.
    first_row: u32,
    num_rows: u32,
    // vec4<u32> and scales of one row; inputs per scale.
    w_row: u32,
    scale_row: u32,
    scale_group: u32,
}
@group(0) @binding(0) var<storage, read> tokens: array<u32>;
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<uniform> P: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = tokens[group.x];
    if (token < P.first_row || token - P.first_row >= P.num_rows) {
        return;
    }
    let row = token - P.first_row;
    for (var k = 4u * lane; k < P.cols; k += 256u) {
        let chunk = w[row * P.w_row + k / {{ CHUNK }}u];
        let value = {{ quad_at("chunk", "k") }} * {{ scale_of("row", "k") }};
{% for e in range(4) %}
        if (k + {{ e }}u < P.cols) {
            out[group.x * P.cols + k + {{ e }}u] = value[{{ e }}];
        }
{% endfor %}
    }
}
