{#- out[t] = sum over k of weight[t, k] y[place of (t, k)], then the shared experts' output. The order is that of the
    choices: it does not depend on other tokens. -#}
struct Params {
    num_rows: u32,
    cols: u32,
    top_k: u32,
}
@group(0) @binding(0) var<storage, read> y: array<f32>;
@group(0) @binding(1) var<storage, read> places: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
{% if SHARED %}
@group(0) @binding(3) var<storage, read> shared_out: array<f32>;
{% endif %}
@group(0) @binding({{ 4 if SHARED else 3 }}) var<storage, read_write> out: array<f32>;
@group(0) @binding({{ 5 if SHARED else 4 }}) var<uniform> P: Params;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < P.num_rows * P.cols; i += groups.x * 256u) {
        let pair = i / P.cols * P.top_k;
        var sum = 0.0;
        for (var k = 0u; k < P.top_k; k++) {
            sum += weights[pair + k] * y[places[pair + k] * P.cols + i % P.cols];
        }
{% if SHARED %}
        sum += shared_out[i];
{% endif %}
        out[i] = sum;
    }
}
