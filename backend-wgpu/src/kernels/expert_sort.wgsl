{#- Groups the (token, choice) pairs of a step by expert and cuts the groups into tiles of rows, in one workgroup. -#}
struct Params {
    num_pairs: u32,
    tile_rows: u32,
}
@group(0) @binding(0) var<storage, read> ids: array<u32>;
// Element 0: number of tiles. Then per tile: expert, first sorted row, rows.
@group(0) @binding(1) var<storage, read_write> tiles: array<vec4<u32>>;
// Pair of each sorted row, and sorted row of each pair.
@group(0) @binding(2) var<storage, read_write> pairs: array<u32>;
@group(0) @binding(3) var<storage, read_write> places: array<u32>;
@group(0) @binding(4) var<uniform> P: Params;

var<workgroup> counts: array<atomic<u32>, {{ EXPERTS }}>;
var<workgroup> first_row: array<u32, {{ EXPERTS }}>;
var<workgroup> first_tile: array<u32, {{ EXPERTS }}>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    for (var e = lane; e < {{ EXPERTS }}u; e += 256u) {
        atomicStore(&counts[e], 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < P.num_pairs; i += 256u) {
        atomicAdd(&counts[ids[i]], 1u);
    }
    workgroupBarrier();
    if (lane == 0u) {
        var row = 0u;
        var tile = 0u;
        for (var e = 0u; e < {{ EXPERTS }}u; e++) {
            first_row[e] = row;
            first_tile[e] = tile;
            let count = atomicLoad(&counts[e]);
            row += count;
            tile += (count + P.tile_rows - 1u) / P.tile_rows;
        }
        tiles[0] = vec4<u32>(tile, 0u, 0u, 0u);
    }
    workgroupBarrier();
    for (var e = lane; e < {{ EXPERTS }}u; e += 256u) {
        let count = atomicLoad(&counts[e]);
        for (var done = 0u; done < count; done += P.tile_rows) {
            let tile = first_tile[e] + done / P.tile_rows;
            tiles[1u + tile] = vec4<u32>(e, first_row[e] + done, min(P.tile_rows, count - done), 0u);
        }
        atomicStore(&counts[e], first_row[e]);
    }
    workgroupBarrier();
    for (var i = lane; i < P.num_pairs; i += 256u) {
        let place = atomicAdd(&counts[ids[i]], 1u);
        pairs[place] = i;
        places[i] = place;
    }
}
