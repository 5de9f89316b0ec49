{#- Id of the highest logit of each row, the lowest id on ties; a workgroup of 256 per row. Devices may assume that no
    value is NaN or infinite, so the bits are compared: read as integers in the order of the numbers. -#}
struct Params {
    cols: u32,
    num_ids: u32,
}
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@group(0) @binding(2) var<uniform> P: Params;

const NO_TOKEN = 0xffffffffu;
var<workgroup> keys: array<u32, 256>;
var<workgroup> ids: array<u32, 256>;

// Grows with the number; 0 for what is never chosen, NaN and minus infinity.
fn order(bits: u32) -> u32 {
    let magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u || bits == 0xff800000u) {
        return 0u;
    }
    if (magnitude == 0u) {
        return 0x80000000u;
    }
    return select(bits | 0x80000000u, ~bits, bits != magnitude);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var best = 0u;
    var id = NO_TOKEN;
    for (var c = lane; c < P.num_ids; c += 256u) {
        let key = order(logits[group.x * P.cols + c]);
        if (key > best) {
            best = key;
            id = c;
        }
    }
    keys[lane] = best;
    ids[lane] = id;
    workgroupBarrier();
{% for half in [128, 64, 32, 16, 8, 4, 2, 1] %}
    if (lane < {{ half }}u) {
        let key = keys[lane + {{ half }}u];
        let other = ids[lane + {{ half }}u];
        if (key > keys[lane] || (key == keys[lane] && other < ids[lane])) {
            keys[lane] = key;
            ids[lane] = other;
        }
    }
    workgroupBarrier();
{% endfor %}
    if (lane == 0u) {
        out[group.x] = ids[0];
    }
}
