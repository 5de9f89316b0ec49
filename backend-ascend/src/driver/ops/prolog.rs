//! The first half of latent attention in fewer operators.

use super::repeat;
use crate::driver::arguments::NO_TENSOR;
use crate::driver::descriptor::View;
use crate::driver::{AscendError, Stream};

/// Norm, rope and cache of latents. Rotated keys are left in the order of halves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyPart {
    /// `[T, 1, 1, Lkv + R]`, before norm and rope.
    pub(crate) kv: View,
    /// `[Lkv]` and ε.
    pub(crate) norm: (View, f32),
    /// cos and sin, `[T, 1, 1, R]` bf16, the values of all pairs twice.
    pub(crate) angles: [View; 2],
    /// `[T]` i64; −1 for none.
    pub(crate) slots: View,
    /// `[blocks, block size, 1, Lkv]` and `[blocks, block size, 1, R]`.
    pub(crate) cache: [View; 2],
    /// `[T, 1, 1, Lkv]` and `[T, 1, 1, R]`: places for results that are not asked for.
    pub(crate) unused: [View; 2],
}

/// The whole first half. Queries and keys are left in the order of halves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MlaProlog {
    /// `[T, H]` bf16, or i8 with scales `[T, 1]` f32.
    pub(crate) x: (View, Option<View>),
    /// q_a, q_b and kv_a in NZ, of the type of `x`.
    pub(crate) weights: [View; 3],
    /// `[1, N]` f32 of each, of i8 weights.
    pub(crate) scales: Option<[View; 3]>,
    /// `[N, P, Lkv]` bf16.
    pub(crate) w_uk: View,
    /// Of queries and of latents.
    pub(crate) norms: [(View, f32); 2],
    /// cos and sin, `[T, R]` bf16, the values of all pairs twice.
    pub(crate) angles: [View; 2],
    /// `[T]` i64, every one a slot.
    pub(crate) slots: View,
    /// As [`KeyPart::cache`].
    pub(crate) cache: [View; 2],
    /// `[T, N, Lkv]` and `[T, N, R]`.
    pub(crate) queries: [View; 2],
}

impl Stream {
    /// As [`KeyPart`] says.
    pub(crate) fn write_keys(&mut self, part: KeyPart) -> Result<(), AscendError> {
        let KeyPart { kv, norm: (gamma, eps), angles: [cos, sin], slots, cache: [latents, keys], unused } = part;
        let ([latents_out, keys_out], gives_rows) = (unused, false);
        repeat!(
            self,
            aclnnKvRmsNormRopeCache,
            aclnnKvRmsNormRopeCacheGetWorkspaceSize,
            kv,
            gamma,
            cos,
            sin,
            slots,
            keys,
            latents,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            f64::from(eps),
            c"PA_BNSD",
            gives_rows,
            keys_out,
            latents_out,
        )
    }

    /// As [`MlaProlog`] says.
    pub(crate) fn mla_prolog(&mut self, prolog: MlaProlog) -> Result<(), AscendError> {
        let MlaProlog { x: (x, x_scales), weights, scales, w_uk, norms, angles, slots, cache, queries } = prolog;
        let [(gamma_q, eps_q), (gamma_kv, eps_kv)] = norms;
        let ([q_a, q_b, kv_a], [cos, sin]) = (weights, angles);
        let scale = |number: usize| scales.map(|scales| scales[number]);
        let ([latents, keys], [absorbed, rotated]) = (cache, queries);
        let weights_in_int8 = if scales.is_some() { 2_i64 } else { 0 };
        let (plain_cache, plain_queries, apart, unused_tile) = (0_i64, 0_i64, 0_i64, 128_i64);
        let no_factor = 1.0_f64;
        repeat!(
            self,
            aclnnMlaPrologV3WeightNz,
            aclnnMlaPrologV3WeightNzGetWorkspaceSize,
            x,
            q_a,
            q_b,
            w_uk,
            kv_a,
            gamma_q,
            gamma_kv,
            sin,
            cos,
            latents,
            keys,
            slots,
            x_scales,
            scale(0),
            scale(1),
            scale(2),
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
            f64::from(eps_q),
            f64::from(eps_kv),
            c"PA_BSND",
            weights_in_int8,
            plain_cache,
            plain_queries,
            apart,
            apart,
            unused_tile,
            no_factor,
            no_factor,
            absorbed,
            rotated,
            NO_TENSOR,
            NO_TENSOR,
            NO_TENSOR,
        )
    }
}
