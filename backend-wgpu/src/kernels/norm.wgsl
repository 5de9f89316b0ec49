{#- RMS norm, a workgroup per row; with RESIDUAL the row is first added to the residual, whose sum is what is normed.
    Needs reduce.wgsl before it. -#}
struct Params {
    cols: u32,
    eps: f32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
{% if RESIDUAL %}
@group(0) @binding(2) var<storage, read_write> residual: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<uniform> P: Params;
{% else %}
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> P: Params;
{% endif %}

@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32{{ sub_arguments() }}) {
    let row = group.x * P.cols;
    var squares = 0.0;
    for (var c = lane; c < P.cols; c += {{ LANES }}u) {
{% if RESIDUAL %}
        let value = residual[row + c] + x[row + c];
        residual[row + c] = value;
{% else %}
        let value = x[row + c];
{% endif %}
        squares += value * value;
    }
    let total = reduce_sum(squares, lane, {{ SUB }});
    let factor = inverseSqrt(total / f32(P.cols) + P.eps);
    for (var c = lane; c < P.cols; c += {{ LANES }}u) {
        out[row + c] = {{ "residual" if RESIDUAL else "x" }}[row + c] * factor * weight[c];
    }
}
