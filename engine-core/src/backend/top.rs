//! The highest logits of a row, as [`Backend::top_logits`](super::Backend::top_logits) leaves them.

/// The K highest logits of a row in no particular order, and the weight of the whole row.
///
/// A row is `2 K + 1` words, so that one copy brings it to the host: K ids, the bits of K logits, the bits of `total`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopLogits<'a> {
    /// Ids; [`NO_TOKEN`](super::NO_TOKEN) where fewer than K logits are above −∞.
    pub ids: &'a [u32],
    /// Their logits; −∞ where there is no id. A −0 may have become 0.
    pub logits: &'a [f32],
    /// Σ exp((logit − highest) · inverse temperature) over the ids that took part, NaN passed over. Means nothing where
    /// the highest is +∞ or there is none.
    pub total: f32,
}

impl<'a> TopLogits<'a> {
    /// Words of a row of `num_top` logits.
    pub fn num_words(num_top: usize) -> usize {
        2 * num_top + 1
    }

    /// The K of rows of `num_words` words.
    pub fn num_top(num_words: usize) -> usize {
        (num_words - 1) / 2
    }

    /// Reads a row.
    ///
    /// # Panics
    /// When the number of words is even.
    pub fn from_words(words: &'a [u32]) -> Self {
        assert!(words.len() % 2 == 1, "a row of top logits is 2 K + 1 words, not {}", words.len());
        let (ids, rest) = words.split_at(Self::num_top(words.len()));
        let (logits, total) = rest.split_at(ids.len());
        Self { ids, logits: bytemuck::cast_slice(logits), total: f32::from_bits(total[0]) }
    }

    /// Writes a row.
    pub fn write_words(&self, words: &mut [u32]) {
        let num_top = self.ids.len();
        words[..num_top].copy_from_slice(self.ids);
        words[num_top..2 * num_top].copy_from_slice(bytemuck::cast_slice(self.logits));
        words[2 * num_top] = self.total.to_bits();
    }
}
