//! Who owns which block of the paged latent KV cache.
//!
//! A block is `block_size` slots in every layer. A sequence's block table lists its blocks in order of position; the
//! pool knows only which blocks are free.

/// Slots per block unless asked otherwise.
pub const DEFAULT_BLOCK_SIZE: usize = 64;

/// The free blocks of a latent cache.
#[derive(Debug, Clone)]
pub struct BlockPool {
    free: Vec<u32>,
    num_blocks: usize,
}

impl BlockPool {
    /// All of `num_blocks` free.
    pub fn new(num_blocks: usize) -> Self {
        // Reversed, so that the lowest block is taken first.
        Self { free: (0..num_blocks as u32).rev().collect(), num_blocks }
    }

    /// Blocks in all.
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// Blocks nobody holds.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// Extends `block_table` to `num_blocks` blocks. Takes nothing and returns false when too few are free.
    #[must_use]
    pub fn extend(&mut self, block_table: &mut Vec<u32>, num_blocks: usize) -> bool {
        let wanted = num_blocks.saturating_sub(block_table.len());
        if wanted > self.free.len() {
            return false;
        }
        let rest = self.free.len() - wanted;
        block_table.extend(self.free.drain(rest..).rev());
        true
    }

    /// Takes back every block of `block_table`.
    pub fn release(&mut self, block_table: &mut Vec<u32>) {
        self.free.extend(block_table.drain(..).rev());
        debug_assert!(self.free.len() <= self.num_blocks, "more blocks released than exist");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_held_once_and_come_back() {
        let mut pool = BlockPool::new(4);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(pool.extend(&mut a, 1));
        assert!(pool.extend(&mut b, 2));
        assert!(pool.extend(&mut a, 2));
        assert_eq!((a.as_slice(), b.as_slice()), (&[0, 3][..], &[1, 2][..]));
        assert!(!pool.extend(&mut b, 3), "only two blocks are held elsewhere");
        assert_eq!(b, [1, 2], "a refused extension takes nothing");
        pool.release(&mut a);
        assert_eq!(pool.num_free(), 2);
        assert!(pool.extend(&mut b, 4));
        let mut all = b.clone();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }
}
