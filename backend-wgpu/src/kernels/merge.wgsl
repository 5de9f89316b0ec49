{#- Brings the splits of attention together: each split's sums are weighed by how its largest score compares. -#}
struct Params {
    num_rows: u32,
    cols: u32,
    num_splits: u32,
}
// [splits, rows, cols] and [splits, rows].
@group(0) @binding(0) var<storage, read> parts: array<f32>;
@group(0) @binding(1) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> P: Params;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let size = P.num_rows * P.cols;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        let row = i / P.cols;
        var largest = stats[row].x;
        for (var s = 1u; s < P.num_splits; s++) {
            largest = max(largest, stats[s * P.num_rows + row].x);
        }
        var sum = 0.0;
        var value = 0.0;
        for (var s = 0u; s < P.num_splits; s++) {
            let part = stats[s * P.num_rows + row];
            let weight = exp(part.x - largest);
            sum += weight * part.y;
            value += weight * parts[s * size + i];
        }
        out[i] = value / sum;
    }
}
