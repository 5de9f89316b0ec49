//! Which part of each linear a rank of a group holds (tensor parallelism).
//!
//! Attention is divided by heads: the rows of the query and `kv_b` projections, the columns of `o_proj`. FFNs and every
//! expert are divided by their intermediate size: the rows of gate and up, the columns of down. What comes out of `o_proj`
//! and of down is a rank's part of a sum. The head is divided by token ids, and the ranks' logits are put side by side on
//! the host. Everything else is whole on every rank, the latent cache too: its keys and values serve all heads.

use std::ops::Range;

use crate::backend::Rank;
use crate::config::ModelConfig;
use crate::quant::{FP8_BLOCK, HostWeight, MatrixShape, WeightError};

/// What a rank holds of a linear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it, as every other rank.
    Whole,
    /// These output rows.
    Rows(Range<usize>),
    /// These input columns.
    Columns(Range<usize>),
}

impl Part {
    /// Shape of the part of a weight of this shape.
    pub fn shape(&self, whole: MatrixShape) -> MatrixShape {
        match self {
            Part::Whole => whole,
            Part::Rows(rows) => MatrixShape::new(rows.len(), whole.in_features),
            Part::Columns(columns) => MatrixShape::new(whole.out_features, columns.len()),
        }
    }

    /// The part of a weight.
    ///
    /// # Errors
    /// [`WeightError::Cut`] where its format cannot be cut there.
    pub fn of(&self, weight: &HostWeight) -> Result<HostWeight, WeightError> {
        match self {
            Part::Whole => Ok(weight.clone()),
            Part::Rows(rows) => weight.rows(rows.clone()),
            Part::Columns(columns) => weight.columns(columns.clone()),
        }
    }
}

/// The share of one rank of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    index: usize,
    world_size: usize,
}

impl Share {
    /// Of a backend.
    pub fn of(rank: &Rank) -> Self {
        Self::new(rank.index(), rank.world_size())
    }

    /// Of rank `index` of `world_size`.
    pub fn new(index: usize, world_size: usize) -> Self {
        Self { index, world_size }
    }

    /// No other rank of `world_size` holds more.
    pub fn largest(world_size: usize) -> Self {
        Self::new(world_size - 1, world_size)
    }

    /// The ids whose logits this rank computes: rows of the head.
    pub fn token_ids(self, vocab_size: usize) -> Range<usize> {
        self.range(vocab_size, self.width_unit(vocab_size))
    }

    /// Heads of attention, of `num_heads` that [`indivisible`] has nothing against.
    pub fn num_heads(self, num_heads: usize) -> usize {
        num_heads / self.world_size
    }

    /// The part of the linear `prefix` (`model.layers.0.mlp.up_proj`) of this shape.
    pub fn part(self, prefix: &str, shape: MatrixShape) -> Part {
        if self.world_size == 1 {
            return Part::Whole;
        }
        match prefix.rsplit('.').next().unwrap_or_default() {
            "q_proj" | "q_b_proj" | "kv_b_proj" => Part::Rows(self.range(shape.out_features, 1)),
            "o_proj" => Part::Columns(self.range(shape.in_features, 1)),
            "gate_proj" | "up_proj" => Part::Rows(self.range(shape.out_features, self.width_unit(shape.out_features))),
            "down_proj" => Part::Columns(self.range(shape.in_features, self.width_unit(shape.in_features))),
            _ => Part::Whole,
        }
    }

    /// An intermediate size is dealt out in whole blocks of FP8 scales, whatever the format, unless there are too few.
    fn width_unit(self, width: usize) -> usize {
        if width >= FP8_BLOCK * self.world_size { FP8_BLOCK } else { 1 }
    }

    /// Shape of what this rank holds of a matrix that is never quantised: of `lm_head` its rows.
    pub fn plain_shape(self, prefix: &str, shape: MatrixShape) -> MatrixShape {
        match prefix {
            "lm_head" => MatrixShape::new(self.token_ids(shape.out_features).len(), shape.in_features),
            _ => shape,
        }
    }

    /// This rank's of `total` things that are dealt out in units; the last ranks get the units that are over.
    fn range(self, total: usize, unit: usize) -> Range<usize> {
        let num_units = total.div_ceil(unit);
        let edge = |rank: usize| (num_units * rank / self.world_size * unit).min(total);
        edge(self.index)..edge(self.index + 1)
    }
}

/// What of the model cannot be divided among `world_size` ranks: the name in `config.json` and the value.
pub fn indivisible(config: &ModelConfig, world_size: usize) -> Option<(&'static str, usize)> {
    let heads = Some(("num_attention_heads", config.attention.num_attention_heads));
    let experts = config.moe.as_ref().map(|moe| ("moe_intermediate_size", moe.moe_intermediate_size));
    let has_dense = (0..config.num_hidden_layers).any(|layer| !config.is_moe_layer(layer));
    let dense = has_dense.then_some(("intermediate_size", config.intermediate_size));
    let is_cut = |(name, size): &(&str, usize)| {
        let in_blocks = *name != "num_attention_heads" && *size >= FP8_BLOCK * world_size;
        !in_blocks && !size.is_multiple_of(world_size)
    };
    [heads, experts, dense].into_iter().flatten().find(is_cut)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::fixtures;
    use crate::weights::layout::{TensorKind, checkpoint_tensors};

    fn parts(prefix: &str, (rows, columns): (usize, usize), world_size: usize) -> Vec<Part> {
        let shape = MatrixShape::new(rows, columns);
        (0..world_size).map(|rank| Share::new(rank, world_size).part(prefix, shape)).collect()
    }

    #[test]
    fn heads_are_divided_evenly_and_widths_in_blocks() {
        let q_b = parts("model.layers.0.self_attn.q_b_proj", (24_576, 1536), 8);
        assert_eq!(q_b[7], Part::Rows(21_504..24_576), "16 heads of 192");
        let o = parts("model.layers.0.self_attn.o_proj", (7168, 16_384), 8);
        assert_eq!(o[1], Part::Columns(2048..4096), "16 heads of 128");
        // Moonlight's experts: 11 blocks.
        let up = parts("model.layers.1.mlp.experts.3.up_proj", (1408, 2048), 2);
        assert_eq!(up, [Part::Rows(0..640), Part::Rows(640..1408)]);
        let down = parts("model.layers.1.mlp.experts.3.down_proj", (2048, 1408), 2);
        assert_eq!(down, [Part::Columns(0..640), Part::Columns(640..1408)]);
        let narrow = parts("model.layers.1.mlp.experts.3.up_proj", (64, 256), 2);
        assert_eq!(narrow, [Part::Rows(0..32), Part::Rows(32..64)]);
        assert_eq!(parts("model.layers.0.self_attn.q_a_proj", (1536, 7168), 2), [Part::Whole, Part::Whole]);
        assert_eq!(parts("model.layers.0.mlp.up_proj", (1408, 2048), 1), [Part::Whole]);
    }

    /// Every rank together holds every weight once, none more than the largest share.
    #[test]
    fn shares_make_up_the_model() {
        for (json, sizes) in [(fixtures::DEEPSEEK_V3, vec![2, 4, 8, 16, 32]), (fixtures::MOONLIGHT, vec![2, 4, 8])] {
            let config = ModelConfig::from_json(json).unwrap();
            for world_size in sizes {
                assert_eq!(indivisible(&config, world_size), None);
                for tensor in checkpoint_tensors(&config, true) {
                    let TensorKind::Linear(_, whole) = tensor.kind else { continue };
                    let part = |rank| Share::new(rank, world_size).part(tensor.prefix(), whole);
                    let sizes: Vec<_> = (0..world_size).map(|rank| part(rank).shape(whole).num_elements()).collect();
                    let largest = Share::largest(world_size).part(tensor.prefix(), whole).shape(whole).num_elements();
                    assert_eq!(sizes.iter().max(), Some(&largest), "{}", tensor.name);
                    let expected = if part(0) == Part::Whole { world_size } else { 1 } * whole.num_elements();
                    assert_eq!(sizes.iter().sum::<usize>(), expected, "{}", tensor.name);
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_divided_is_named() {
        let config = ModelConfig::from_json(fixtures::DEEPSEEK_V3).unwrap();
        assert_eq!(indivisible(&config, 3), Some(("num_attention_heads", 128)));
        let narrow = |config: &ModelConfig| {
            let mut config = config.clone();
            config.moe.as_mut().unwrap().moe_intermediate_size = 100;
            config
        };
        assert_eq!(indivisible(&narrow(&config), 8), Some(("moe_intermediate_size", 100)));
        assert_eq!(indivisible(&narrow(&config), 4), None);
    }
}
