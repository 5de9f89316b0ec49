//! NZ: the order in which Ascend's matrix units take weights.
//!
//! A matrix `[K, N]` is cut into tiles of 16 rows and 32 bytes of columns. Tiles below one another come first, then the next
//! column of tiles: `[N / C, K / 16, 16, C]`, C being the columns of a tile. Tiles at the edges are filled up with zeros.
//! It is a permutation, so weights are packed on the host while they are loaded.

/// Rows of a tile, and bytes of each.
pub(crate) const TILE_ROWS: usize = 16;
pub(crate) const TILE_BYTES: usize = 32;

/// `[N / C, K / 16, 16, C]` of a matrix `[k, n]` whose elements have `element_bytes`.
pub(crate) fn dims([k, n]: [usize; 2], element_bytes: usize) -> [usize; 4] {
    let columns = TILE_BYTES / element_bytes;
    [n.div_ceil(columns), k.div_ceil(TILE_ROWS), TILE_ROWS, columns]
}

/// Packs the transpose of a weight: `weight [n, k]`, row-major as checkpoints have it, to `[k, n]` in NZ, appended to `out`.
///
/// # Panics
/// If `weight` has another number of bytes: a bug of who prepares.
pub(crate) fn pack_transposed(weight: &[u8], [n, k]: [usize; 2], element_bytes: usize, out: &mut Vec<u8>) {
    assert_eq!(weight.len(), n * k * element_bytes, "a weight of [{n}, {k}]");
    let [tiles_across, tiles_down, _, columns] = dims([k, n], element_bytes);
    let begin = out.len();
    out.resize(begin + tiles_across * tiles_down * TILE_ROWS * TILE_BYTES, 0);
    let packed = &mut out[begin..];
    for (column, weight) in weight.chunks_exact(k * element_bytes).enumerate() {
        let tile_column = column / columns * tiles_down * TILE_ROWS * TILE_BYTES;
        let within = column % columns * element_bytes;
        // Rows of the packed matrix are 32 bytes apart, tile after tile.
        for (row, element) in weight.chunks_exact(element_bytes).enumerate() {
            packed[tile_column + row * TILE_BYTES + within..][..element_bytes].copy_from_slice(element);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The element `[row, column]` of a packed matrix, by the definition.
    fn element(packed: &[u8], [k, n]: [usize; 2], [row, column]: [usize; 2], bytes: usize) -> Vec<u8> {
        let [_, tiles_down, rows, columns] = dims([k, n], bytes);
        let tile = column / columns * tiles_down + row / rows;
        let index = (tile * rows + row % rows) * columns + column % columns;
        packed[index * bytes..][..bytes].to_vec()
    }

    #[test]
    fn what_is_packed_can_be_read_back() {
        for ([n, k], bytes) in [([64, 32], 1), ([64, 32], 2), ([40, 24], 2), ([33, 17], 1), ([1, 1], 2)] {
            let weight: Vec<u8> = (0..n * k * bytes).map(|i| (i * 37 % 251) as u8 + 1).collect();
            let mut packed = vec![0xee];
            pack_transposed(&weight, [n, k], bytes, &mut packed);
            assert_eq!(packed.remove(0), 0xee, "appended");
            assert_eq!(packed.len(), dims([k, n], bytes).iter().product::<usize>() * bytes);
            for row in 0..k {
                for column in 0..n {
                    let expected = &weight[(column * k + row) * bytes..][..bytes];
                    assert_eq!(element(&packed, [k, n], [row, column], bytes), expected, "[{row}, {column}]");
                }
            }
            let num_filled = packed.iter().filter(|byte| **byte != 0).count();
            assert_eq!(num_filled, weight.len(), "the rest is zero");
        }
    }

    #[test]
    fn dims_are_those_of_the_reference() {
        // An output projection in INT8, and q_b of 32 heads in bf16.
        assert_eq!(dims([16_384, 7168], 1), [224, 1024, 16, 32]);
        assert_eq!(dims([1536, 6144], 2), [384, 96, 16, 16]);
    }
}
