//! The first half of latent attention in fewer operators.

use std::ptr;

use super::run;
use crate::driver::descriptor::{View, raw_or_null};
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
        let context = self.context.clone();
        let libraries = context.libraries();
        let (gamma, eps) = part.norm;
        let [kv, gamma, slots] = libraries.tensors([part.kv, gamma, part.slots])?;
        let [cos, sin] = libraries.tensors(part.angles)?;
        let [latents, keys] = libraries.tensors(part.cache)?;
        let [latents_out, keys_out] = libraries.tensors(part.unused)?;
        let (none, gives_rows) = (ptr::null(), false);
        run!(
            self,
            aclnnKvRmsNormRopeCache,
            aclnnKvRmsNormRopeCacheGetWorkspaceSize,
            kv.raw(),
            gamma.raw(),
            cos.raw(),
            sin.raw(),
            slots.raw(),
            keys.raw(),
            latents.raw(),
            none,
            none,
            none,
            none,
            f64::from(eps),
            c"PA_BNSD".as_ptr().cast_mut(),
            gives_rows,
            keys_out.raw(),
            latents_out.raw(),
        )
    }

    /// As [`MlaProlog`] says.
    pub(crate) fn mla_prolog(&mut self, prolog: MlaProlog) -> Result<(), AscendError> {
        let context = self.context.clone();
        let libraries = context.libraries();
        let [(gamma_q, eps_q), (gamma_kv, eps_kv)] = prolog.norms;
        let [x, w_uk, gamma_q, gamma_kv, slots] =
            libraries.tensors([prolog.x.0, prolog.w_uk, gamma_q, gamma_kv, prolog.slots])?;
        let x_scales = libraries.optional_tensor(prolog.x.1)?;
        let [q_a, q_b, kv_a] = libraries.tensors(prolog.weights)?;
        let scales = prolog.scales.map(|scales| libraries.tensors(scales)).transpose()?;
        let scale = |number: usize| raw_or_null(scales.as_ref().map(|scales| &scales[number]));
        let [cos, sin] = libraries.tensors(prolog.angles)?;
        let [latents, keys] = libraries.tensors(prolog.cache)?;
        let [absorbed, rotated] = libraries.tensors(prolog.queries)?;
        let none = ptr::null();
        let weights_in_int8 = if scales.is_some() { 2 } else { 0 };
        let (plain_cache, plain_queries, apart, unused_tile) = (0, 0, 0, 128);
        run!(
            self,
            aclnnMlaPrologV3WeightNz,
            aclnnMlaPrologV3WeightNzGetWorkspaceSize,
            x.raw(),
            q_a.raw(),
            q_b.raw(),
            w_uk.raw(),
            kv_a.raw(),
            gamma_q.raw(),
            gamma_kv.raw(),
            sin.raw(),
            cos.raw(),
            latents.raw(),
            keys.raw(),
            slots.raw(),
            raw_or_null(x_scales.as_ref()),
            scale(0),
            scale(1),
            scale(2),
            none,
            none,
            none,
            none,
            none,
            f64::from(eps_q),
            f64::from(eps_kv),
            c"PA_BSND".as_ptr().cast_mut(),
            weights_in_int8,
            plain_cache,
            plain_queries,
            apart,
            apart,
            unused_tile,
            1.0,
            1.0,
            absorbed.raw(),
            rotated.raw(),
            none,
            none,
            none,
        )
    }
}
