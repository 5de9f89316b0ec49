//! How the first half runs: in one operator, its key part in one, or as a sequence.
//!
//! Both operators leave rotated values in the order of halves: the first values of all pairs, then the second ones. A layer
//! that uses either keeps to that order in all its steps, in queries and cache.

use engine_core::backend::{MlaSpec, MlaWeights, QueryProjection, StepLayout};
use engine_core::config::AttentionConfig;
use engine_core::quant::WeightFormat;

use super::form::{Form, Forms, takes_blocks};
use crate::device::Device;
use crate::linear::packs;

/// Sizes that `aclnnMlaPrologV3WeightNz` takes.
const HIDDEN: [usize; 9] = [1024, 2048, 3072, 4096, 5120, 6144, 7168, 7680, 8192];
const QUERY_RANKS: [usize; 2] = [1536, 2048];
const HEAD_WIDTHS: [usize; 2] = [128, 192];
const RANK: usize = 512;
const ROPE: usize = 64;
const MAX_HEADS: usize = 128;

/// What a layer's first half may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FirstHalf {
    /// One operator for all of it.
    pub(super) is_whole: bool,
    /// One operator for norm, rope and cache of the key part.
    pub(super) has_fused_keys: bool,
}

impl FirstHalf {
    /// Decides, and leaves the reason in the log.
    pub(super) fn choose(device: &Device, spec: &MlaSpec, weights: &MlaWeights) -> Self {
        let formats = formats(weights);
        let refusal = match (device.fused.prolog, formats) {
            (false, _) => Some("this CANN lacks aclnnMlaPrologV3WeightNz".to_owned()),
            (true, Some([format, ..])) if !packs(device, format) => Some(format!("no products of {format} in NZ")),
            (true, _) => refusal(&spec.dims, spec.hidden_size, formats),
        };
        let has_fused_keys = device.fused.keys;
        let reason = refusal.as_deref().unwrap_or("sizes and formats fit");
        tracing::trace!(
            device = device.name,
            whole = refusal.is_none(),
            has_fused_keys,
            reason,
            "attention's first half"
        );
        Self { is_whole: refusal.is_none(), has_fused_keys }
    }

    /// True where rotated values lie in the order of halves.
    pub(super) fn orders_halves(self) -> bool {
        self.is_whole || self.has_fused_keys
    }

    /// True where one operator takes a step: every token is written to the cache, and none wants plain queries.
    pub(super) fn takes_step(self, forms: Forms, layout: &StepLayout) -> bool {
        self.is_whole
            && takes_blocks(layout.block_size)
            && layout.num_written() == layout.num_tokens()
            && forms.runs(layout).all(|run| run.form != Form::Expanded)
    }

    /// True where one operator takes a step's key part.
    pub(super) fn takes_keys(self, layout: &StepLayout) -> bool {
        self.has_fused_keys && takes_blocks(layout.block_size)
    }
}

/// Formats of q_a, q_b and kv_a; none without a query rank.
fn formats(weights: &MlaWeights) -> Option<[WeightFormat; 3]> {
    match &weights.q {
        QueryProjection::LowRank { a, b, .. } => Some([a.format(), b.format(), weights.kv_a.format()]),
        QueryProjection::Direct(_) => None,
    }
}

/// Why the whole first half is not taken by one operator; none where it is.
fn refusal(dims: &AttentionConfig, hidden: usize, formats: Option<[WeightFormat; 3]>) -> Option<String> {
    let (Some(rank), Some(formats)) = (dims.q_lora_rank, formats) else {
        return Some("queries have no low rank".into());
    };
    let is_known = |format: &WeightFormat| matches!(format, WeightFormat::Bf16 | WeightFormat::Int8Channel);
    if !formats.iter().all(|format| is_known(format) && *format == formats[0]) {
        return Some(format!("weights in {}, {} and {}; bf16 or INT8 are taken", formats[0], formats[1], formats[2]));
    }
    let heads = dims.num_attention_heads;
    let checks = [
        (HIDDEN.contains(&hidden), "hidden size", hidden, format!("{HIDDEN:?}")),
        (QUERY_RANKS.contains(&rank), "q_lora_rank", rank, format!("{QUERY_RANKS:?}")),
        (dims.kv_lora_rank == RANK, "kv_lora_rank", dims.kv_lora_rank, RANK.to_string()),
        (dims.qk_rope_head_dim == ROPE, "qk_rope_head_dim", dims.qk_rope_head_dim, ROPE.to_string()),
        (
            HEAD_WIDTHS.contains(&dims.qk_nope_head_dim),
            "qk_nope_head_dim",
            dims.qk_nope_head_dim,
            format!("{HEAD_WIDTHS:?}"),
        ),
        (
            heads.is_power_of_two() && heads <= MAX_HEADS,
            "number of heads",
            heads,
            format!("powers of two up to {MAX_HEADS}"),
        ),
    ];
    let failed = checks.into_iter().find(|(holds, ..)| !holds);
    failed.map(|(_, what, found, taken)| format!("{what} {found}; taken are {taken}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V3: AttentionConfig = AttentionConfig {
        num_attention_heads: 128,
        q_lora_rank: Some(1536),
        kv_lora_rank: 512,
        qk_nope_head_dim: 128,
        qk_rope_head_dim: 64,
        v_head_dim: 128,
    };
    const INT8: Option<[WeightFormat; 3]> = Some([WeightFormat::Int8Channel; 3]);

    #[test]
    fn published_sizes_are_taken() {
        for hidden in HIDDEN {
            for heads in [1, 2, 4, 8, 16, 32, 64, 128] {
                let dims = AttentionConfig { num_attention_heads: heads, ..V3 };
                assert_eq!(refusal(&dims, hidden, INT8), None);
                assert_eq!(refusal(&dims, hidden, Some([WeightFormat::Bf16; 3])), None);
            }
        }
        let wide = AttentionConfig { q_lora_rank: Some(2048), qk_nope_head_dim: 192, ..V3 };
        assert_eq!(refusal(&wide, 7168, INT8), None);
    }

    #[test]
    fn each_other_size_is_named() {
        let refused = |dims: AttentionConfig, hidden, words: &str| {
            let reason = refusal(&dims, hidden, INT8).unwrap_or_default();
            assert!(reason.contains(words), "{words}: {reason}");
        };
        refused(V3, 2560, "hidden size 2560");
        refused(AttentionConfig { q_lora_rank: Some(768), ..V3 }, 7168, "q_lora_rank 768");
        refused(AttentionConfig { q_lora_rank: None, ..V3 }, 7168, "no low rank");
        refused(AttentionConfig { kv_lora_rank: 256, ..V3 }, 7168, "kv_lora_rank 256");
        refused(AttentionConfig { qk_rope_head_dim: 32, ..V3 }, 7168, "qk_rope_head_dim 32");
        refused(AttentionConfig { qk_nope_head_dim: 64, ..V3 }, 7168, "qk_nope_head_dim 64");
        refused(AttentionConfig { num_attention_heads: 20, ..V3 }, 7168, "number of heads 20");
        refused(AttentionConfig { num_attention_heads: 256, ..V3 }, 7168, "number of heads 256");
        for formats in [
            [WeightFormat::Fp8Block; 3],
            [WeightFormat::Int8Channel, WeightFormat::Int8Channel, WeightFormat::Bf16],
            [WeightFormat::Bf16, WeightFormat::Int8Channel, WeightFormat::Bf16],
        ] {
            assert!(
                refusal(&V3, 7168, Some(formats)).is_some_and(|reason| reason.contains("weights in")),
                "{formats:?}"
            );
        }
    }

    #[test]
    fn steps_are_taken_whole_or_not() {
        let whole = FirstHalf { is_whole: true, has_fused_keys: true };
        let forms = Forms::new(&V3, true);
        let decode = StepLayout {
            positions: vec![3, 0],
            slot_mapping: vec![7, 16],
            block_table: vec![0, 1],
            seq_lens: vec![8, 1],
            query_start_loc: vec![0, 1, 2],
            max_blocks_per_seq: 1,
            block_size: 16,
            max_query_len: 1,
            max_seq_len: 8,
        };
        assert!(whole.takes_step(forms, &decode) && whole.takes_keys(&decode));
        assert!(!FirstHalf { is_whole: false, ..whole }.takes_step(forms, &decode));
        assert!(!FirstHalf { has_fused_keys: false, ..whole }.takes_keys(&decode));
        let odd_blocks = StepLayout { block_size: 8, ..decode.clone() };
        assert!(!whole.takes_step(forms, &odd_blocks) && !whole.takes_keys(&odd_blocks));
        let padded = StepLayout { slot_mapping: vec![7, engine_core::backend::PAD_SLOT], ..decode.clone() };
        assert!(!whole.takes_step(forms, &padded) && whole.takes_keys(&padded));
        let prompt = StepLayout {
            positions: (0..30).collect(),
            slot_mapping: (0..30).collect(),
            block_table: vec![0, 1],
            seq_lens: vec![30],
            query_start_loc: vec![0, 30],
            max_blocks_per_seq: 2,
            max_query_len: 30,
            max_seq_len: 30,
            ..decode
        };
        assert!(!whole.takes_step(forms, &prompt) && whole.takes_keys(&prompt), "a prompt wants plain queries");
    }
}
