{#- Copies and sums over whole tensors; a grid of any size walks over all elements. -#}
struct Params {
    num_rows: u32,
    // Columns of the output, and of the first input.
    cols: u32,
    left_cols: u32,
}
{% if OP == "add" %}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> P: Params;
{% else %}
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<{{ "u32" if OP == "gather_rows" else "f32" }}>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> P: Params;
{% endif %}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < P.num_rows * P.cols; i += groups.x * 256u) {
{% if OP == "add" %}
        out[i] += x[i];
{% elif OP == "gather_rows" %}
        out[i] = a[b[i / P.cols] * P.cols + i % P.cols];
{% elif OP == "concat" %}
        let row = i / P.cols;
        let col = i % P.cols;
        if (col < P.left_cols) {
            out[i] = a[row * P.left_cols + col];
        } else {
            out[i] = b[row * (P.cols - P.left_cols) + col - P.left_cols];
        }
{% endif %}
    }
}
