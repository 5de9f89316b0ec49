{#- Rope of the queries' tails into the last rope_dim columns of the latent queries (spec 3.3, interleaved pairs). -#}
struct Params {
    num_tokens: u32,
    num_heads: u32,
    nope_dim: u32,
    rope_dim: u32,
    kv_lora_rank: u32,
}
// [T, N, P + R]
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> rope: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
// [T, N, Lkv + R]
@group(0) @binding(3) var<storage, read_write> queries: array<f32>;
@group(0) @binding(4) var<uniform> P: Params;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let pairs = P.rope_dim / 2u;
    for (var i = id.x; i < P.num_tokens * P.num_heads * pairs; i += groups.x * 256u) {
        let pair = i % pairs;
        let row = i / pairs;
        let turn = rope[positions[row / P.num_heads] * pairs + pair];
        let from_at = row * (P.nope_dim + P.rope_dim) + P.nope_dim + 2u * pair;
        let to_at = row * (P.kv_lora_rank + P.rope_dim) + P.kv_lora_rank + 2u * pair;
        let a = q[from_at];
        let b = q[from_at + 1u];
        queries[to_at] = a * turn.x - b * turn.y;
        queries[to_at + 1u] = a * turn.y + b * turn.x;
    }
}
