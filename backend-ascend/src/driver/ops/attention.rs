//! Rope, the paged cache, and fused attention over it.

use std::ptr;

use super::{repeat, run};
use crate::driver::arguments::{NO_INTEGERS, NO_TENSOR};
use crate::driver::descriptor::{View, raw_or_null};
use crate::driver::{AscendError, Stream};

/// Attention of all tokens of some sequences.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'a> {
    /// `[T, N, Lkv]` and `[T, N, R]`, the first one `[T, N, P]` with expanded keys; one token per sequence over the cache:
    /// `[S, 1, N, Lkv]` and `[S, 1, N, R]`.
    pub(crate) queries: [View; 2],
    pub(crate) keys: Keys,
    /// Where each sequence's tokens end, and the causal mask `[2048, 2048]`; none where each sequence has one token.
    pub(crate) causal: Option<(&'a [i64], View)>,
    /// Of each sequence, this step's tokens included; added up with expanded keys.
    pub(crate) lengths: &'a [i64],
    pub(crate) softmax_scale: f64,
    /// Like the first of `queries`.
    pub(crate) out: View,
}

/// What queries see.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys {
    /// The paged cache, for absorbed queries.
    Paged {
        /// `[blocks, block size, Lkv]` and `[blocks, block size, R]`.
        cache: [View; 2],
        /// `[S, blocks of a sequence]` i32.
        block_table: View,
    },
    /// Of every head and all positions of the sequences, one after the other: `[L, N, P]`, `[L, N, R]`, `[L, N, V]`.
    Expanded { keys: View, rotated: View, values: View },
}

impl Stream {
    /// Rotates pairs `(x[2i], x[2i + 1])` and keeps their order: `x [T, N, R]`; `cos` and `sin` `[T, 1, R]` hold the value of
    /// each pair twice. All of one type.
    pub(crate) fn rotate(&mut self, x: View, [cos, sin]: [View; 2], out: View) -> Result<(), AscendError> {
        let interleaved = 1_i64;
        repeat!(
            self,
            aclnnRotaryPositionEmbedding,
            aclnnRotaryPositionEmbeddingGetWorkspaceSize,
            x,
            cos,
            sin,
            interleaved,
            out
        )
    }

    /// `kv_c [T, 1, Lkv]` and `k_pe [T, 1, R]` to the slots of a layer's cache: `[blocks, block size, 1, Lkv]` and `[blocks,
    /// block size, 1, R]`. `slots [T]` i32 are distinct.
    pub(crate) fn write_cache(
        &mut self,
        [kv_c, k_pe]: [View; 2],
        slots: View,
        [latents, keys]: [View; 2],
    ) -> Result<(), AscendError> {
        repeat!(
            self,
            aclnnScatterPaKvCache,
            aclnnScatterPaKvCacheGetWorkspaceSize,
            kv_c,
            latents,
            slots,
            k_pe,
            keys,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            c"Norm",
            c"None",
            NO_INTEGERS,
            NO_INTEGERS,
        )
    }

    /// Plans attention and queues it.
    pub(in crate::driver) fn queue_attention(&mut self, attention: Attention<'_>) -> Result<(), AscendError> {
        let context = self.context.clone();
        let libraries = context.libraries();
        let num_heads = attention.queries[0].dim(if attention.causal.is_some() { 1 } else { 2 }) as i64;
        let ([keys, rotated, values], block_table, key_heads, block_size) = match attention.keys {
            Keys::Paged { cache: [latents, keys], block_table } => {
                ([latents, keys, latents], Some(block_table), 1, latents.dim(1) as i64)
            }
            Keys::Expanded { keys, rotated, values } => ([keys, rotated, values], None, num_heads, 0),
        };
        let (key, value) = (libraries.tensor_list(&[keys])?, libraries.tensor_list(&[values])?);
        let [query, query_rope] = libraries.tensors(attention.queries)?;
        let [key_rope, out] = libraries.tensors([rotated, attention.out])?;
        let block_table = libraries.optional_tensor(block_table)?;
        let mask = libraries.optional_tensor(attention.causal.map(|(_, mask)| mask))?;
        let ends = attention.causal.map(|(ends, _)| libraries.int_array(ends)).transpose()?;
        let ends = ends.as_ref().map_or(ptr::null(), |ends| ends.raw().cast_const());
        let lengths = libraries.int_array(attention.lengths)?;
        let (layout, sparse_mode) = match attention.causal {
            Some(_) => (c"TND", 3),
            None => (c"BSND", 0),
        };
        let (all_tokens, precise) = (i64::from(i32::MAX), 0);
        let none = ptr::null();
        run!(
            self,
            aclnnFusedInferAttentionScoreV4,
            aclnnFusedInferAttentionScoreV4GetWorkspaceSize,
            query.raw(),
            key.raw(),
            value.raw(),
            none,
            raw_or_null(mask.as_ref()),
            ends,
            lengths.raw(),
            none,
            none,
            none,
            none,
            none,
            none,
            none,
            raw_or_null(block_table.as_ref()),
            none,
            none,
            none,
            none,
            none,
            none,
            none,
            none,
            ptr::null(),
            query_rope.raw(),
            key_rope.raw(),
            none,
            none,
            none,
            num_heads,
            attention.softmax_scale,
            all_tokens,
            all_tokens,
            layout.as_ptr().cast_mut(),
            key_heads,
            sparse_mode,
            precise,
            block_size,
            0,
            false,
            0,
            0,
            0,
            out.raw(),
            none,
        )
    }
}
