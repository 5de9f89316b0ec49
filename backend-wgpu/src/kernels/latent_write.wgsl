{#- One token per workgroup: norm of the latent, rope of the key's tail, both into the token's cache slot
    (spec 3.2). Needs reduce.wgsl before it. -#}
struct Params {
    kv_lora_rank: u32,
    rope_dim: u32,
    eps: f32,
}
const PAD_SLOT = 0xffffffffu;
@group(0) @binding(0) var<storage, read> kv_a: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
// Cosine and sine of each pair, [position, rope_dim / 2].
@group(0) @binding(2) var<storage, read> rope: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> positions: array<u32>;
@group(0) @binding(4) var<storage, read> slot_mapping: array<u32>;
@group(0) @binding(5) var<storage, read_write> cache: array<f32>;
@group(0) @binding(6) var<uniform> P: Params;

@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32{{ sub_arguments() }}) {
    let slot = slot_mapping[group.x];
    if (slot == PAD_SLOT) {
        return;
    }
    let width = P.kv_lora_rank + P.rope_dim;
    let row = group.x * width;
    var squares = 0.0;
    for (var c = lane; c < P.kv_lora_rank; c += {{ LANES }}u) {
        squares += kv_a[row + c] * kv_a[row + c];
    }
    let total = reduce_sum(squares, lane, {{ SUB }});
    let factor = inverseSqrt(total / f32(P.kv_lora_rank) + P.eps);
    for (var c = lane; c < P.kv_lora_rank; c += {{ LANES }}u) {
        cache[slot * width + c] = kv_a[row + c] * factor * weight[c];
    }
    let pairs = P.rope_dim / 2u;
    for (var i = lane; i < pairs; i += {{ LANES }}u) {
        let turn = rope[positions[group.x] * pairs + i];
        let at = P.kv_lora_rank + 2u * i;
        let a = kv_a[row + at];
        let b = kv_a[row + at + 1u];
        cache[slot * width + at] = a * turn.x - b * turn.y;
        cache[slot * width + at + 1u] = a * turn.y + b * turn.x;
    }
}
