//! Rope, the paged cache, and fused attention over it.

use std::ptr;

use super::run;
use crate::driver::descriptor::{View, raw_or_null};
use crate::driver::{AscendError, Stream};

/// Attention of absorbed queries over the paged latent cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'a> {
    /// `[T, N, Lkv]` and `[T, N, R]`; one token per sequence: `[S, 1, N, Lkv]` and `[S, 1, N, R]`.
    pub(crate) queries: [View; 2],
    /// `[blocks, block size, Lkv]` and `[blocks, block size, R]`.
    pub(crate) cache: [View; 2],
    /// `[S, blocks of a sequence]` i32.
    pub(crate) block_table: View,
    /// Where each sequence's tokens end, and the causal mask `[2048, 2048]`; none where each sequence has one token.
    pub(crate) causal: Option<(&'a [i64], View)>,
    /// Of each sequence, this step's tokens included.
    pub(crate) lengths: &'a [i64],
    pub(crate) softmax_scale: f64,
    /// Like the first of `queries`.
    pub(crate) out: View,
}

impl Stream {
    /// Rotates pairs `(x[2i], x[2i + 1])` and keeps their order: `x [T, N, R]`; `cos` and `sin` `[T, 1, R]` hold the value of
    /// each pair twice. All of one type.
    pub(crate) fn rotate(&mut self, x: View, [cos, sin]: [View; 2], out: View) -> Result<(), AscendError> {
        let context = self.context.clone();
        let [x, cos, sin, out] = context.libraries().tensors([x, cos, sin, out])?;
        let interleaved = 1;
        run!(
            self,
            aclnnRotaryPositionEmbedding,
            aclnnRotaryPositionEmbeddingGetWorkspaceSize,
            x.raw(),
            cos.raw(),
            sin.raw(),
            interleaved,
            out.raw()
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
        let context = self.context.clone();
        let [kv_c, k_pe, slots, latents, keys] = context.libraries().tensors([kv_c, k_pe, slots, latents, keys])?;
        let none = ptr::null();
        run!(
            self,
            aclnnScatterPaKvCache,
            aclnnScatterPaKvCacheGetWorkspaceSize,
            kv_c.raw(),
            latents.raw(),
            slots.raw(),
            k_pe.raw(),
            keys.raw(),
            none,
            none,
            none,
            c"Norm".as_ptr().cast_mut(),
            c"None".as_ptr().cast_mut(),
            ptr::null(),
            ptr::null(),
        )
    }

    /// As [`Attention`] says.
    pub(crate) fn attend(&mut self, attention: Attention<'_>) -> Result<(), AscendError> {
        let context = self.context.clone();
        let libraries = context.libraries();
        let [latents, keys] = attention.cache;
        let (key, value) = (libraries.tensor_list(&[latents])?, libraries.tensor_list(&[latents])?);
        let [query, query_rope] = libraries.tensors(attention.queries)?;
        let [key_rope, block_table, out] = libraries.tensors([keys, attention.block_table, attention.out])?;
        let mask = libraries.optional_tensor(attention.causal.map(|(_, mask)| mask))?;
        let ends = attention.causal.map(|(ends, _)| libraries.int_array(ends)).transpose()?;
        let ends = ends.as_ref().map_or(ptr::null(), |ends| ends.raw().cast_const());
        let lengths = libraries.int_array(attention.lengths)?;
        let (layout, sparse_mode) = match attention.causal {
            Some(_) => (c"TND", 3),
            None => (c"BSND", 0),
        };
        let num_heads = attention.queries[0].dim(if attention.causal.is_some() { 1 } else { 2 }) as i64;
        let block_size = latents.dim(1) as i64;
        let (all_tokens, one_head, precise) = (i64::from(i32::MAX), 1, 0);
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
            block_table.raw(),
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
            one_head,
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
