//! Rope, the paged cache, and fused attention over it.

use std::ffi::c_char;

use super::elementwise::softmax;
use super::{broadcast, dense, dot, same_shape};
use crate::api::{operators, text};
use crate::machine::Outcome;
use crate::operator::{require, wrong_size};
use crate::tensor::DataType::{Bf16, Bool, F32, I8, I32, I64, U8};
use crate::tensor::View;

/// Limits of attention with queries of width 512 and a rotated part of 64.
const LATENT_WIDTH: usize = 512;
const ROPE_WIDTH: usize = 64;
const MAX_HEADS: usize = 128;
const MAX_QUERY: usize = 16;
const MAX_BLOCK: i64 = 1024;
const BLOCK_UNIT: i64 = 16;
const MASK_SIDE: usize = 2048;

operators! {
    fn aclnnRotaryPositionEmbedding aclnnRotaryPositionEmbeddingGetWorkspaceSize(
        call, x: u64, cos: u64, sin: u64, mode: i64, out: u64,
    ) {
        let x = call.input("x", x, &[F32, Bf16])?;
        let (cos, sin) = (call.input("cos", cos, &[x.data_type])?, call.input("sin", sin, &[x.data_type])?);
        let out = call.output("out", out, &[x.data_type])?;
        require(mode == 1, || format!("mode {mode}: A2 and A3 have 0 (halves) and 1 (pairs), modelled is 1"))?;
        require(x.dims.len() == 3, || "other layouts than TND are not modelled".into())?;
        let (num_tokens, heads, width) = (x.dims[0], x.dims[1], x.dims[2]);
        if heads >= 1000 || width >= 896 || !width.is_multiple_of(2) {
            return Err(wrong_size(format!("{heads} heads of width {width}; below 1000, even and below 896 are taken")));
        }
        same_shape("cos", &cos.dims, &[num_tokens, 1, width])?;
        same_shape("sin", &sin.dims, &cos.dims)?;
        same_shape("out", &out.dims, &x.dims)?;
        dense("out", &out)?;
        let (cos, sin) = (broadcast(&cos, &x.dims)?, broadcast(&sin, &x.dims)?);
        Ok(Box::new(move || {
            let (values, cos, sin) = (x.floats(), cos.floats(), sin.floats());
            let turned = |i: usize| if i.is_multiple_of(2) { -values[i + 1] } else { values[i - 1] };
            let rotated = (0..values.len()).map(|i| values[i] * cos[i] + turned(i) * sin[i]);
            out.write(&rotated.collect::<Vec<f32>>());
            Ok(())
        }))
    }

    fn aclnnScatterPaKvCache aclnnScatterPaKvCacheGetWorkspaceSize(
        call, key: u64, key_cache: u64, slots: u64, value: u64, value_cache: u64, lens: u64, offsets: u64, seq_lens: u64,
        mode: *const c_char, scatter: *const c_char, strides: u64, shifts: u64,
    ) {
        call.is_null(&[
            ("compressLensOptional", lens), ("compressSeqOffsetOptional", offsets), ("seqLensOptional", seq_lens),
            ("stridesOptional", strides), ("offsetsOptional", shifts),
        ])?;
        let (key, value) = (call.input("key", key, &[Bf16])?, call.input("value", value, &[Bf16])?);
        let key_cache = call.in_place("keyCacheRef", key_cache, &[Bf16])?;
        let value_cache = call.in_place("valueCacheRef", value_cache, &[Bf16])?;
        let slots = call.input("slotMapping", slots, &[I32, I64])?;
        let modes = [text(mode), text(scatter)];
        require(["", "Norm"].contains(&modes[0].as_str()) && ["", "None"].contains(&modes[1].as_str()), || {
            format!("modes {modes:?} are not modelled")
        })?;
        for (what, rows, cache) in [("key", &key, &key_cache), ("value", &value, &value_cache)] {
            require(rows.dims.len() == 3 && cache.dims.len() == 4, || format!("{what} {:?}", rows.dims))?;
            same_shape(what, &rows.dims, &[slots.num_elements(), cache.dims[2], cache.dims[3]])?;
            dense(&format!("{what} cache"), cache)?;
        }
        same_shape("slotMapping", &slots.dims, &[key.dims[0]])?;
        same_shape("valueCacheRef's blocks", &value_cache.dims[..2], &key_cache.dims[..2])?;
        Ok(Box::new(move || {
            let slots = slots.integers();
            let num_slots = (key_cache.dims[0] * key_cache.dims[1]) as i64;
            let mut seen = std::collections::BTreeSet::new();
            if let Some(slot) = slots.iter().find(|slot| !(0..num_slots).contains(slot) || !seen.insert(**slot)) {
                return Err(format!("slot {slot} of {num_slots} is outside or given twice"));
            }
            for (rows, cache) in [(&key, &key_cache), (&value, &value_cache)] {
                let width = cache.dims[2] * cache.dims[3];
                for (row, slot) in rows.floats().chunks(width).zip(&slots) {
                    let offset = cache.offset + *slot as usize * width;
                    let place = View { dims: vec![width], strides: vec![1], offset, ..cache.clone() };
                    place.write(row);
                }
            }
            Ok(())
        }))
    }

    fn aclnnFusedInferAttentionScoreV4 aclnnFusedInferAttentionScoreV4GetWorkspaceSize(
        call, query: u64, key: u64, value: u64, shift: u64, mask: u64, ends: u64, lengths: u64, a1: u64, a2: u64, a3: u64,
        a4: u64, a5: u64, a6: u64, a7: u64, block_table: u64, b1: u64, b2: u64, b3: u64, b4: u64, b5: u64, b6: u64,
        b7: u64, b8: u64, b9: u64, query_rope: u64, key_rope: u64, c1: u64, c2: u64, c3: u64, num_heads: i64,
        softmax_scale: f64, before: i64, after: i64, layout: *const c_char, num_kv_heads: i64, sparse: i64, precise: i64,
        block_size: i64, quant_mode: i64, gives_sums: bool, key_mode: i64, value_mode: i64, query_mode: i64, out: u64,
        sums: u64,
    ) {
        let absent = [shift, a1, a2, a3, a4, a5, a6, a7, b1, b2, b3, b4, b5, b6, b7, b8, b9, c1, c2, c3, sums];
        call.is_null(&absent.map(|handle| ("an optional tensor", handle)))?;
        let plain = precise == 0 && quant_mode == 0 && key_mode == 0 && value_mode == 0 && query_mode == 0;
        require(plain && !gives_sums, || "quantised caches and sums are not modelled".into())?;
        let (query, query_rope) =
            (call.input("query", query, &[Bf16])?, call.input("queryRopeOptional", query_rope, &[Bf16])?);
        let (key, value) = (call.only("key", key)?, call.only("value", value)?);
        let (key, value) = (call.input("key", key, &[Bf16])?, call.input("value", value, &[Bf16])?);
        let key_rope = call.input("keyRopeOptional", key_rope, &[Bf16])?;
        let block_table = call.input("blockTableOptional", block_table, &[I32])?;
        let mask = call.optional_input("attenMaskOptional", mask, &[Bool, I8, U8])?;
        let ends = if ends == 0 { None } else { Some(call.integers("actualSeqLengthsOptional", ends)?) };
        let lengths = call.integers("actualSeqLengthsKvOptional", lengths)?;
        let out = call.output("attentionOut", out, &[Bf16])?;
        let attention = Attention {
            layout: Layout::new(&text(layout), &query, ends, mask.as_ref(), sparse)?,
            query: query.clone(), query_rope, key, value, key_rope, block_table, lengths,
            scale: softmax_scale as f32, out, num_heads: num_heads as usize,
        };
        require(num_kv_heads == 1 && before >= i64::from(i32::MAX) && after >= i64::from(i32::MAX), || {
            format!("{num_kv_heads} key heads, windows {before} and {after}")
        })?;
        attention.check(block_size)?;
        call.needs_workspace(query.num_elements() * 8);
        Ok(Box::new(move || attention.run(mask.as_ref())))
    }
}

/// Which tokens are whose.
struct Layout {
    /// End of each sequence's tokens.
    ends: Vec<usize>,
    is_causal: bool,
}

impl Layout {
    fn new(name: &str, query: &View, ends: Option<Vec<i64>>, mask: Option<&View>, sparse: i64) -> Outcome<Self> {
        let is_causal = sparse == 3;
        match (name, query.dims.len(), ends) {
            ("BSND", 4, None) if query.dims[1] == 1 && sparse == 0 && mask.is_none() => {
                Ok(Self { ends: (1..=query.dims[0]).collect(), is_causal })
            }
            ("TND", 3, Some(ends)) if is_causal => {
                let Some(mask) = mask else { return Err(crate::operator::invalid("sparseMode 3 without a mask")) };
                same_shape("attenMaskOptional", &mask.dims, &[MASK_SIDE, MASK_SIDE])?;
                let rises = ends.windows(2).all(|pair| pair[0] < pair[1]) && ends.first().is_some_and(|end| *end > 0);
                require(rises && ends.last() == Some(&(query.dims[0] as i64)), || {
                    format!("ends {ends:?} of {} tokens", query.dims[0])
                })?;
                Ok(Self { ends: ends.into_iter().map(|end| end as usize).collect(), is_causal })
            }
            (_, rank, _) => Err(crate::operator::invalid(format!(
                "layout {name} with {rank} dimensions, sparseMode {sparse}: BSND with one token each, or causal TND"
            ))),
        }
    }
}

struct Attention {
    layout: Layout,
    query: View,
    query_rope: View,
    key: View,
    value: View,
    key_rope: View,
    block_table: View,
    lengths: Vec<i64>,
    scale: f32,
    out: View,
    num_heads: usize,
}

impl Attention {
    fn check(&self, block_size: i64) -> Outcome<()> {
        let (Some((&width, rows)), num_heads) = (self.query.dims.split_last(), self.num_heads) else {
            return Err(wrong_size("a query without dimensions"));
        };
        let heads_fit = num_heads.is_power_of_two() && num_heads <= MAX_HEADS && rows.last() == Some(&num_heads);
        if width != LATENT_WIDTH || !heads_fit {
            return Err(wrong_size(format!("queries {:?} of {num_heads} heads", self.query.dims)));
        }
        if block_size % BLOCK_UNIT != 0 || !(1..=MAX_BLOCK).contains(&block_size) {
            return Err(wrong_size(format!("blocks of {block_size}")));
        }
        let blocks = self.key.dims[0];
        same_shape("queryRopeOptional", &self.query_rope.dims, &[rows, &[ROPE_WIDTH]].concat())?;
        same_shape("key", &self.key.dims, &[blocks, block_size as usize, LATENT_WIDTH])?;
        require(self.value == self.key, || "value is not the memory of key".into())?;
        same_shape("keyRopeOptional", &self.key_rope.dims, &[blocks, block_size as usize, ROPE_WIDTH])?;
        same_shape("attentionOut", &self.out.dims, &self.query.dims)?;
        let num_seqs = self.layout.ends.len();
        require(self.lengths.len() == num_seqs && self.block_table.dims[0] == num_seqs, || {
            format!("{} lengths and {:?} blocks of {num_seqs} sequences", self.lengths.len(), self.block_table.dims)
        })?;
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        let most = self.block_table.dims[1] as i64 * block_size;
        require(longest <= most, || format!("a sequence of {longest} in a table for {most}"))?;
        let starts = std::iter::once(&0).chain(&self.layout.ends);
        for ((start, end), length) in starts.zip(&self.layout.ends).zip(&self.lengths) {
            let query_len = end - start;
            if query_len > MAX_QUERY || (*length as usize) < query_len {
                return Err(wrong_size(format!("{query_len} tokens of a sequence of {length}")));
            }
        }
        for view in [&self.query, &self.query_rope, &self.key, &self.key_rope, &self.block_table, &self.out] {
            dense("an operand", view)?;
        }
        Ok(())
    }

    fn run(&self, mask: Option<&View>) -> Result<(), String> {
        if let Some(mask) = mask {
            let values = mask.integers();
            let is_triangle = (0..MASK_SIDE * MASK_SIDE).all(|i| values[i] == i64::from(i % MASK_SIDE > i / MASK_SIDE));
            if !is_triangle {
                return Err("the mask is not 1 above the diagonal alone".into());
            }
        }
        let (query, query_rope) = (self.query.floats(), self.query_rope.floats());
        let blocks = self.block_table.integers();
        let (per_seq, block_size) = (self.block_table.dims[1], self.key.dims[1]);
        let mut out = Vec::with_capacity(query.len());
        let mut start = 0;
        for (seq, end) in self.layout.ends.iter().enumerate() {
            let length = self.lengths[seq] as usize;
            let slot = |position: usize| -> Result<usize, String> {
                let block = blocks[seq * per_seq + position / block_size];
                let known = usize::try_from(block).ok().filter(|block| *block < self.key.dims[0]);
                Ok(known.ok_or_else(|| format!("block {block}"))? * block_size + position % block_size)
            };
            let slots: Vec<usize> = (0..length).map(slot).collect::<Result<_, _>>()?;
            let row = |cache: &View, slot: usize| -> Vec<f32> {
                let width = cache.dims[2];
                let offset = cache.offset + slot * width;
                View { dims: vec![width], strides: vec![1], offset, ..cache.clone() }.floats()
            };
            let keys: Vec<Vec<f32>> = slots.iter().map(|slot| row(&self.key, *slot)).collect();
            let ropes: Vec<Vec<f32>> = slots.iter().map(|slot| row(&self.key_rope, *slot)).collect();
            for token in start..*end {
                let visible = if self.layout.is_causal { length - (end - token - 1) } else { length };
                for head in token * self.num_heads..(token + 1) * self.num_heads {
                    let q = &query[head * LATENT_WIDTH..][..LATENT_WIDTH];
                    let r = &query_rope[head * ROPE_WIDTH..][..ROPE_WIDTH];
                    let score = |i: usize| self.scale * (dot(q, &keys[i]) + dot(r, &ropes[i]));
                    let mut scores: Vec<f32> = (0..visible).map(score).collect();
                    softmax(&mut scores);
                    let mut sum = vec![0.0; LATENT_WIDTH];
                    for (weight, key) in scores.iter().zip(&keys) {
                        sum.iter_mut().zip(key).for_each(|(sum, key)| *sum += weight * key);
                    }
                    out.extend(sum);
                }
            }
            start = *end;
        }
        self.out.write(&out);
        Ok(())
    }
}
