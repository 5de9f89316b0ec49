//! One matrix, written by many threads.

use std::marker::PhantomData;
use std::ops::Range;

use crate::threads::Threads;

/// A matrix to be written in tiles: `rows` cut into groups, columns cut into pieces.
pub(crate) struct Grid<'a> {
    /// Row-major, `cols` wide.
    pub(crate) data: &'a mut [f32],
    pub(crate) cols: usize,
    /// Ascending first rows of the groups and, last, the end.
    pub(crate) groups: &'a [usize],
    /// Columns of a tile; the last one may be narrower.
    pub(crate) tile_cols: usize,
}

/// A rectangle of a [`Grid`] that only its holder can touch.
pub(crate) struct Tile<'a> {
    /// Index of the row group.
    pub(crate) group: usize,
    /// Rows of the matrix.
    pub(crate) rows: Range<usize>,
    /// Columns of the matrix.
    pub(crate) cols: Range<usize>,
    /// First value of the rectangle.
    origin: *mut f32,
    stride: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

impl Tile<'_> {
    /// This tile's columns of its `i`-th row.
    pub(crate) fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows.len(), "row {i} of a tile of {}", self.rows.len());
        // SAFETY: the rectangle lies inside the matrix (checked in `Grid::for_each_tile`) and `i` inside the rectangle.
        let start = unsafe { self.origin.add(i * self.stride) };
        // SAFETY: `cols.len()` values from there on belong to this tile alone, since the tiles of a grid are disjoint;
        // `&mut self` keeps two rows of it from being held at once.
        unsafe { std::slice::from_raw_parts_mut(start, self.cols.len()) }
    }
}

/// The matrix's address, for all threads.
struct Origin(*mut f32);

// SAFETY: the pointer is only used to make tiles, which are disjoint, while the matrix is mutably borrowed.
unsafe impl Sync for Origin {}

impl Origin {
    /// The value at `offset`.
    ///
    /// # Safety
    /// `offset` must lie inside the matrix.
    unsafe fn at(&self, offset: usize) -> *mut f32 {
        // SAFETY: the caller keeps to the matrix.
        unsafe { self.0.add(offset) }
    }
}

impl Grid<'_> {
    /// Runs `task` for every tile that has rows, in parallel.
    ///
    /// # Panics
    /// If the groups are not ascending or the last one ends outside the matrix.
    pub(crate) fn for_each_tile(self, threads: &Threads, task: impl Fn(Tile<'_>) + Sync + Send) {
        let Grid { data, cols, groups, tile_cols } = self;
        let num_rows = groups.last().copied().unwrap_or(0);
        assert!(groups.is_sorted(), "row groups must ascend");
        assert!(num_rows * cols <= data.len(), "{num_rows} rows of {cols} in a matrix of {} values", data.len());
        if num_rows == 0 || cols == 0 {
            return;
        }
        let tiles_per_group = cols.div_ceil(tile_cols);
        let origin = Origin(data.as_mut_ptr());
        threads.for_each((groups.len() - 1) * tiles_per_group, |index| {
            let (group, piece) = (index / tiles_per_group, index % tiles_per_group);
            let rows = groups[group]..groups[group + 1];
            let cols_of_tile = piece * tile_cols..((piece + 1) * tile_cols).min(cols);
            if rows.is_empty() {
                return;
            }
            // SAFETY: `rows.start` is below `num_rows` and the column below `cols`: inside the matrix.
            let first = unsafe { origin.at(rows.start * cols + cols_of_tile.start) };
            task(Tile { group, rows, cols: cols_of_tile, origin: first, stride: cols, matrix: PhantomData });
        });
    }
}

/// Values a task of [`for_each_row`] should have at least, so that starting it is worth it.
const MIN_TASK_VALUES: usize = 16 * 1024;

/// Runs `task(row, values)` for every row of a matrix, in parallel.
pub(crate) fn for_each_row(
    threads: &Threads,
    data: &mut [f32],
    cols: usize,
    task: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    let rows_per_task = MIN_TASK_VALUES.div_ceil(cols);
    for_each_piece(threads, data, rows_per_task * cols, |piece, values| {
        for (i, row) in values.chunks_mut(cols).enumerate() {
            task(piece * rows_per_task + i, row);
        }
    });
}

/// Runs `task(piece, values)` for every piece of `len` values, in parallel; the last one may be shorter.
pub(crate) fn for_each_piece(
    threads: &Threads,
    data: &mut [f32],
    len: usize,
    task: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    let cols = data.len();
    Grid { data, cols, groups: &[0, 1], tile_cols: len }.for_each_tile(threads, |mut tile| {
        let piece = tile.cols.start / len;
        task(piece, tile.row(0));
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tiles_cover_the_matrix_once() {
        let threads = Threads::new(3).unwrap();
        for (cols, tile_cols) in [(1, 1), (7, 3), (8, 16), (10, 5)] {
            let mut data = vec![0.0; 6 * cols];
            let groups = [0, 1, 1, 4, 5];
            Grid { data: &mut data, cols, groups: &groups, tile_cols }.for_each_tile(&threads, |mut tile| {
                assert_eq!(tile.rows, groups[tile.group]..groups[tile.group + 1]);
                let (rows, cols) = (tile.rows.clone(), tile.cols.clone());
                for (i, row) in rows.enumerate() {
                    for (value, col) in tile.row(i).iter_mut().zip(cols.clone()) {
                        *value += (100 * row + col) as f32 + 1.0;
                    }
                }
            });
            for (i, value) in data.iter().enumerate() {
                let (row, col) = (i / cols, i % cols);
                let expected = if row < 5 { (100 * row + col) as f32 + 1.0 } else { 0.0 };
                assert_eq!(*value, expected, "row {row}, column {col} of {cols}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "row groups must ascend")]
    fn overlapping_groups_are_refused() {
        let threads = Threads::new(1).unwrap();
        Grid { data: &mut [0.0; 4], cols: 1, groups: &[0, 3, 2, 4], tile_cols: 1 }.for_each_tile(&threads, |_| {});
    }
}
