//! The first half of latent attention: its key part alone, and all of it in one operator.

use std::ffi::c_char;

use super::elementwise::rms_norm;
use super::products::{integer_product, product, scaled};
use super::{dense, quantise_row, same_shape};
use crate::api::{operators, text};
use crate::machine::Outcome;
use crate::operator::{Call, require, wrong_size};
use crate::tensor::DataType::{Bf16, F32, I8, I64};
use crate::tensor::View;

/// Slots of a block come in multiples of this many, at most so many.
const BLOCK_UNIT: usize = 16;
const MAX_BLOCK: usize = 1024;
/// Sizes of the whole prolog.
const HIDDEN: [usize; 9] = [1024, 2048, 3072, 4096, 5120, 6144, 7168, 7680, 8192];
const QUERY_RANK: [usize; 2] = [1536, 2048];
const HEAD_WIDTH: [usize; 2] = [128, 192];
const RANK: usize = 512;
const ROPE: usize = 64;
const MAX_HEADS: usize = 128;

operators! {
    fn aclnnKvRmsNormRopeCache aclnnKvRmsNormRopeCacheGetWorkspaceSize(
        call, kv: u64, gamma: u64, cos: u64, sin: u64, index: u64, k_cache: u64, ckv_cache: u64, k_scale: u64,
        c_scale: u64, k_offset: u64, c_offset: u64, eps: f64, mode: *const c_char, gives_rows: bool, k_out: u64, c_out: u64,
    ) {
        call.is_null(&[
            ("kRopeScaleOptional", k_scale),
            ("cKvScaleOptional", c_scale),
            ("kRopeOffsetOptional", k_offset),
            ("cKvOffsetOptional", c_offset),
        ])?;
        let kv = call.input("kv", kv, &[Bf16])?;
        let gamma = call.input("gamma", gamma, &[Bf16])?;
        let (cos, sin) = (call.input("cos", cos, &[Bf16])?, call.input("sin", sin, &[Bf16])?);
        let index = call.input("index", index, &[I64])?;
        let cache = Cache::new(call, ("ckvCacheRef", ckv_cache), ("kCacheRef", k_cache))?;
        let mode = text(mode);
        require(mode == "PA_BNSD" && !gives_rows, || format!("cacheMode {mode}, isOutputKv {gives_rows}: not modelled"))?;
        require(kv.dims.len() == 4 && kv.dims[1] == 1, || format!("kv {:?}", kv.dims))?;
        let (rank, rope) = (cache.rank(), cache.rope());
        let rows = kv.dims[0] * kv.dims[2];
        same_shape("kv", &kv.dims[3..], &[rank + rope])?;
        same_shape("gamma", &gamma.dims, &[rank])?;
        same_shape("cos", &cos.dims, &[kv.dims[0], 1, kv.dims[2], rope])?;
        same_shape("sin", &sin.dims, &cos.dims)?;
        same_shape("index", &index.dims, &[rows])?;
        // Given in the reference's example and not written without isOutputKv.
        let (k_out, c_out) = (call.output("kRopeOut", k_out, &[Bf16])?, call.output("cKvOut", c_out, &[Bf16])?);
        same_shape("kRopeOut", &k_out.dims, &cos.dims)?;
        same_shape("cKvOut", &c_out.dims, &[kv.dims[0], 1, kv.dims[2], rank])?;
        Ok(Box::new(move || {
            let (angles, gamma) = ([cos.floats(), sin.floats()], gamma.floats());
            cache.write(&kv.floats(), (&gamma, eps), &angles, (&index.integers(), Some(-1)))
        }))
    }

    fn aclnnMlaPrologV3WeightNz aclnnMlaPrologV3WeightNzGetWorkspaceSize(
        call, x: u64, w_dq: u64, w_uq: u64, w_uk: u64, w_dkv: u64, gamma_q: u64, gamma_kv: u64, sin: u64, cos: u64,
        kv_cache: u64, kr_cache: u64, index: u64, x_scale: u64, dq_scale: u64, uq_scale: u64, dkv_scale: u64,
        a1: u64, a2: u64, a3: u64, a4: u64, a5: u64, eps_q: f64, eps_kv: f64, mode: *const c_char, weight_mode: i64,
        kv_mode: i64, query_mode: i64, repo: i64, scale_repo: i64, _tile: i64, q_factor: f64, k_factor: f64, query: u64,
        query_rope: u64, b1: u64, b2: u64, b3: u64,
    ) {
        call.is_null(&[a1, a2, a3, a4, a5, b1, b2, b3].map(|handle| ("an optional tensor", handle)))?;
        let plain = kv_mode == 0 && query_mode == 0 && repo == 0 && scale_repo == 0 && q_factor == 1.0 && k_factor == 1.0;
        let mode = text(mode);
        require(plain && mode == "PA_BSND" && [0, 2].contains(&weight_mode), || {
            format!("cacheMode {mode}, weightQuantMode {weight_mode}: PA_BSND with 0 or 2 is modelled, nothing else scaled")
        })?;
        let data_type = if weight_mode == 2 { I8 } else { Bf16 };
        let x = call.input("tokenX", x, &[data_type])?;
        let down_q = Weight::new(call, ("weightDq", w_dq), ("dequantScaleWDqOptional", dq_scale), data_type)?;
        let up_q = Weight::new(call, ("weightUqQr", w_uq), ("dequantScaleWUqQrOptional", uq_scale), data_type)?;
        let down_kv = Weight::new(call, ("weightDkvKr", w_dkv), ("dequantScaleWDkvKrOptional", dkv_scale), data_type)?;
        let x_scale = match data_type {
            I8 => Some(call.input("dequantScaleXOptional", x_scale, &[F32])?),
            _ => call.is_null(&[("dequantScaleXOptional", x_scale)]).map(|()| None)?,
        };
        let w_uk = call.input("weightUk", w_uk, &[Bf16])?;
        let gammas =
            [call.input("rmsnormGammaCq", gamma_q, &[Bf16])?, call.input("rmsnormGammaCkv", gamma_kv, &[Bf16])?];
        let angles = [call.input("ropeCos", cos, &[Bf16])?, call.input("ropeSin", sin, &[Bf16])?];
        let index = call.input("cacheIndexOptional", index, &[I64])?;
        let cache = Cache::new(call, ("kvCacheRef", kv_cache), ("krCacheRef", kr_cache))?;
        let (query, query_rope) =
            (call.output("queryOut", query, &[Bf16])?, call.output("queryRopeOut", query_rope, &[Bf16])?);
        let prolog = Prolog { x, x_scale, down_q, up_q, down_kv, w_uk, gammas, angles, index, cache, query, query_rope };
        prolog.check()?;
        call.needs_workspace(prolog.query.num_elements() * 4);
        Ok(Box::new(move || prolog.run([eps_q, eps_kv])))
    }
}

/// Both parts of a paged cache.
struct Cache {
    latents: View,
    keys: View,
}

impl Cache {
    fn new(call: &mut Call<'_>, latents: (&str, u64), keys: (&str, u64)) -> Outcome<Self> {
        let cache = Self {
            latents: call.in_place(latents.0, latents.1, &[Bf16])?,
            keys: call.in_place(keys.0, keys.1, &[Bf16])?,
        };
        for (what, view) in [(latents.0, &cache.latents), (keys.0, &cache.keys)] {
            require(view.dims.len() == 4 && view.dims[2] == 1, || format!("{what} {:?}", view.dims))?;
            dense(what, view)?;
        }
        same_shape("the blocks of both caches", &cache.keys.dims[..2], &cache.latents.dims[..2])?;
        let block = cache.latents.dims[1];
        if !block.is_multiple_of(BLOCK_UNIT) || block > MAX_BLOCK {
            return Err(wrong_size(format!("blocks of {block}")));
        }
        Ok(cache)
    }

    fn rank(&self) -> usize {
        self.latents.dims[3]
    }

    fn rope(&self) -> usize {
        self.keys.dims[3]
    }

    /// Rows `[rank + rope]`: the first part normalised, the second one rotated, to their slots. A slot of `skipped` is not written.
    fn write(
        &self,
        rows: &[f32],
        (gamma, eps): (&[f32], f64),
        [cos, sin]: &[Vec<f32>; 2],
        (slots, skipped): (&[i64], Option<i64>),
    ) -> Result<(), String> {
        let (rank, rope) = (self.rank(), self.rope());
        let num_slots = (self.latents.dims[0] * self.latents.dims[1]) as i64;
        let mut seen = std::collections::BTreeSet::new();
        let angles = cos.chunks(rope).zip(sin.chunks(rope));
        for ((row, (cos, sin)), slot) in rows.chunks(rank + rope).zip(angles).zip(slots) {
            if skipped == Some(*slot) {
                continue;
            }
            if !(0..num_slots).contains(slot) || !seen.insert(*slot) {
                return Err(format!("slot {slot} of {num_slots} is outside or given twice"));
            }
            let (latent, key) = row.split_at(rank);
            let place = |cache: &View, width: usize| {
                let offset = cache.offset + *slot as usize * width;
                View { dims: vec![width], strides: vec![1], offset, ..cache.clone() }
            };
            place(&self.latents, rank).write(&rms_norm(latent, gamma, eps).0);
            place(&self.keys, rope).write(&rotate_to_halves(key, cos, sin));
        }
        Ok(())
    }
}

/// Pairs `(x[2i], x[2i + 1])`, rotated; first values of all pairs come first.
fn rotate_to_halves(x: &[f32], cos: &[f32], sin: &[f32]) -> Vec<f32> {
    let half = x.len() / 2;
    let value = |i: usize| match i.checked_sub(half) {
        None => x[2 * i] * cos[i] - x[2 * i + 1] * sin[i],
        Some(pair) => x[2 * pair + 1] * cos[i] + x[2 * pair] * sin[i],
    };
    (0..x.len()).map(value).collect()
}

/// A weight in NZ, `[K, N]`, with a scale per column where it is i8.
struct Weight {
    values: View,
    scales: Option<View>,
}

impl Weight {
    fn new(
        call: &mut Call<'_>,
        (what, values): (&str, u64),
        (scales_are, scales): (&str, u64),
        data_type: crate::tensor::DataType,
    ) -> Outcome<Self> {
        let values = call.nz_input(what, values, &[data_type])?;
        require(values.dims.len() == 2, || format!("{what} {:?}", values.dims))?;
        if data_type == Bf16 {
            call.is_null(&[(scales_are, scales)])?;
            return Ok(Self { values, scales: None });
        }
        let scales = call.input(scales_are, scales, &[F32])?;
        same_shape(scales_are, &scales.dims, &[1, values.dims[1]])?;
        Ok(Self { values, scales: Some(scales) })
    }

    /// Columns one after the other.
    fn columns<T: Copy>(&self, values: &[T]) -> Vec<T> {
        let width = self.values.dims[1];
        (0..width).flat_map(|column| values.iter().skip(column).step_by(width).copied()).collect()
    }

    /// Products of rows; of codes and their scales where the weight is i8.
    fn multiply(&self, rows: &[f32], row_scales: &[f32]) -> Vec<f32> {
        let depth = self.values.dims[0];
        let Some(scales) = &self.scales else {
            return product(rows, &self.columns(&self.values.floats()), depth);
        };
        let codes: Vec<i64> = rows.iter().map(|code| *code as i64).collect();
        let sums = integer_product(&codes, &self.columns(&self.values.integers()), depth);
        scaled(&sums, row_scales, &scales.floats())
    }
}

struct Prolog {
    /// `[T, H]`, and a scale per row of codes.
    x: View,
    x_scale: Option<View>,
    down_q: Weight,
    up_q: Weight,
    down_kv: Weight,
    w_uk: View,
    gammas: [View; 2],
    angles: [View; 2],
    index: View,
    cache: Cache,
    query: View,
    query_rope: View,
}

impl Prolog {
    fn check(&self) -> Outcome<()> {
        let Self { x, down_q, up_q, down_kv, w_uk, gammas, angles, index, cache, query, query_rope, .. } = self;
        require(x.dims.len() == 2 && w_uk.dims.len() == 3, || {
            format!("tokenX {:?}, weightUk {:?}", x.dims, w_uk.dims)
        })?;
        let (num_tokens, hidden, heads, width) = (x.dims[0], x.dims[1], w_uk.dims[0], w_uk.dims[1]);
        let query_rank = down_q.values.dims[1];
        let fits = HIDDEN.contains(&hidden) && QUERY_RANK.contains(&query_rank) && HEAD_WIDTH.contains(&width);
        let heads_fit = heads.is_power_of_two() && heads <= MAX_HEADS;
        if !fits || !heads_fit || cache.rank() != RANK || cache.rope() != ROPE {
            return Err(wrong_size(format!(
                "hidden {hidden}, query rank {query_rank}, {heads} heads of {width}, latents of {} and {}",
                cache.rank(),
                cache.rope()
            )));
        }
        same_shape("weightDq", &down_q.values.dims, &[hidden, query_rank])?;
        same_shape("weightUqQr", &up_q.values.dims, &[query_rank, heads * (width + ROPE)])?;
        same_shape("weightDkvKr", &down_kv.values.dims, &[hidden, RANK + ROPE])?;
        same_shape("weightUk", &w_uk.dims, &[heads, width, RANK])?;
        same_shape("rmsnormGammaCq", &gammas[0].dims, &[query_rank])?;
        same_shape("rmsnormGammaCkv", &gammas[1].dims, &[RANK])?;
        same_shape("ropeCos", &angles[0].dims, &[num_tokens, ROPE])?;
        same_shape("ropeSin", &angles[1].dims, &[num_tokens, ROPE])?;
        same_shape("cacheIndexOptional", &index.dims, &[num_tokens])?;
        if let Some(scale) = &self.x_scale {
            same_shape("dequantScaleXOptional", &scale.dims, &[num_tokens, 1])?;
        }
        same_shape("queryOut", &query.dims, &[num_tokens, heads, RANK])?;
        same_shape("queryRopeOut", &query_rope.dims, &[num_tokens, heads, ROPE])?;
        [x, w_uk, &gammas[0], &gammas[1], &angles[0], &angles[1], index, query, query_rope]
            .into_iter()
            .try_for_each(|view| dense("an operand", view))
    }

    fn run(&self, [eps_q, eps_kv]: [f64; 2]) -> Result<(), String> {
        let (x, scales) = (self.x.floats(), self.x_scale.as_ref().map(View::floats).unwrap_or_default());
        let angles = [self.angles[0].floats(), self.angles[1].floats()];
        let kv = self.down_kv.multiply(&x, &scales);
        let gamma = self.gammas[1].floats();
        self.cache.write(&kv, (&gamma, eps_kv), &angles, (&self.index.integers(), None))?;
        let normed = rms_norm(&self.down_q.multiply(&x, &scales), &self.gammas[0].floats(), eps_q).0;
        let queries = match self.up_q.scales {
            None => self.up_q.multiply(&rounded(&normed), &[]),
            Some(_) => {
                let mut codes = Vec::new();
                let rows = normed.chunks(self.up_q.values.dims[0]);
                let scales: Vec<f32> = rows.map(|row| quantise_row(row, &mut codes)).collect();
                self.up_q.multiply(&codes, &scales)
            }
        };
        let (heads, width) = (self.w_uk.dims[0], self.w_uk.dims[1]);
        let w_uk = self.w_uk.transposed().floats();
        let (mut absorbed, mut rotated) = (Vec::new(), Vec::new());
        for (row, query) in queries.chunks(width + ROPE).enumerate() {
            let (nope, rope) = query.split_at(width);
            absorbed.extend(product(&rounded(nope), &w_uk[row % heads * RANK * width..][..RANK * width], width));
            let token = row / heads * ROPE;
            rotated.extend(rotate_to_halves(rope, &angles[0][token..][..ROPE], &angles[1][token..][..ROPE]));
        }
        self.query.write(&absorbed);
        self.query_rope.write(&rotated);
        Ok(())
    }
}

/// What a matrix unit multiplies: values in bf16.
fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect()
}
