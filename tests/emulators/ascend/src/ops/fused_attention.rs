//! Fused attention: absorbed queries over the paged latent cache, and plain ones over keys and values of every head.

use std::ffi::c_char;
use std::ops::Range;

use super::elementwise::softmax;
use super::{dense, dot, same_shape};
use crate::api::{operators, text};
use crate::machine::Outcome;
use crate::operator::{invalid, require, wrong_size};
use crate::tensor::DataType::{Bf16, Bool, I8, I32, U8};
use crate::tensor::View;

/// Width of absorbed queries, of plain ones, and of the rotated part of both.
const LATENT_WIDTH: usize = 512;
const HEAD_WIDTH: usize = 128;
const ROPE_WIDTH: usize = 64;
/// Most heads of either.
const MAX_LATENT_HEADS: usize = 128;
const MAX_HEADS: usize = 256;
/// Most tokens of a sequence over the cache.
const MAX_QUERY: usize = 16;
const MAX_BLOCK: i64 = 1024;
const BLOCK_UNIT: i64 = 16;
const MASK_SIDE: usize = 2048;

operators! {
    fn aclnnFusedInferAttentionScoreV4 aclnnFusedInferAttentionScoreV4GetWorkspaceSize(
        call, query: u64, key: u64, value: u64, shift: u64, mask: u64, ends: u64, lengths: u64, a1: u64, a2: u64, a3: u64,
        a4: u64, a5: u64, a6: u64, a7: u64, block_table: u64, b1: u64, b2: u64, b3: u64, b4: u64, b5: u64, b6: u64,
        b7: u64, b8: u64, b9: u64, query_rope: u64, key_rope: u64, c1: u64, c2: u64, c3: u64, num_heads: i64,
        softmax_scale: f64, before: i64, after: i64, layout: *const c_char, num_key_heads: i64, sparse: i64, precise: i64,
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
        let block_table = call.optional_input("blockTableOptional", block_table, &[I32])?;
        let mask = call.optional_input("attenMaskOptional", mask, &[Bool, I8, U8])?;
        let ends = if ends == 0 { None } else { Some(call.integers("actualSeqLengthsOptional", ends)?) };
        let lengths = call.integers("actualSeqLengthsKvOptional", lengths)?;
        let out = call.output("attentionOut", out, &[Bf16])?;
        require(before >= i64::from(i32::MAX) && after >= i64::from(i32::MAX), || {
            format!("windows {before} and {after}")
        })?;
        let tokens = Tokens::new(&text(layout), &query, ends, mask.as_ref(), sparse)?;
        let keys = Keys { key, value, key_rope, block_table };
        let sequences = keys.sequences(&tokens, &lengths, block_size, num_key_heads)?;
        let attention = Attention {
            sequences, is_causal: tokens.is_causal, query: query.clone(), query_rope, keys,
            scale: softmax_scale as f32, out, num_heads: num_heads as usize,
        };
        attention.check(num_key_heads)?;
        call.needs_workspace(query.num_elements() * 8);
        Ok(Box::new(move || attention.run(mask.as_ref())))
    }
}

/// Which tokens are whose.
struct Tokens {
    /// Of each sequence.
    ranges: Vec<Range<usize>>,
    is_causal: bool,
}

impl Tokens {
    fn new(layout: &str, query: &View, ends: Option<Vec<i64>>, mask: Option<&View>, sparse: i64) -> Outcome<Self> {
        let is_causal = sparse == 3;
        match (layout, query.dims.len(), ends) {
            ("BSND", 4, None) if query.dims[1] == 1 && sparse == 0 && mask.is_none() => {
                Ok(Self { ranges: (0..query.dims[0]).map(|token| token..token + 1).collect(), is_causal })
            }
            ("TND", 3, Some(ends)) if is_causal => {
                let Some(mask) = mask else { return Err(invalid("sparseMode 3 without a mask")) };
                same_shape("attenMaskOptional", &mask.dims, &[MASK_SIDE, MASK_SIDE])?;
                Ok(Self { ranges: ranges("actualSeqLengthsOptional", &ends, query.dims[0])?, is_causal })
            }
            (_, rank, _) => Err(invalid(format!(
                "layout {layout} with {rank} dimensions, sparseMode {sparse}: BSND with one token each, or causal TND"
            ))),
        }
    }
}

/// Ranges by their ends, none of which is empty; the last one is at `count`.
fn ranges(what: &str, ends: &[i64], count: usize) -> Outcome<Vec<Range<usize>>> {
    let rises = ends.windows(2).all(|pair| pair[0] < pair[1]) && ends.first().is_some_and(|end| *end > 0);
    require(rises && ends.last() == Some(&(count as i64)), || format!("{what} {ends:?} of {count} rows"))?;
    let starts = std::iter::once(0).chain(ends.iter().copied());
    Ok(starts.zip(ends).map(|(start, end)| start as usize..*end as usize).collect())
}

/// What the queries of one sequence see.
struct Sequence {
    tokens: Range<usize>,
    /// Rows of keys: those of its own, or from its blocks' positions.
    rows: Range<usize>,
}

/// Keys and values: of a paged cache where there is a table of blocks.
struct Keys {
    key: View,
    value: View,
    key_rope: View,
    block_table: Option<View>,
}

impl Keys {
    fn sequences(&self, tokens: &Tokens, lengths: &[i64], block_size: i64, num_heads: i64) -> Outcome<Vec<Sequence>> {
        let rows = match &self.block_table {
            Some(table) => self.paged(table, lengths, block_size, num_heads)?,
            None => {
                require(block_size == 0, || format!("blocks of {block_size} without a table"))?;
                require(tokens.is_causal, || "keys without blocks are modelled for causal TND".into())?;
                ranges("actualSeqLengthsKvOptional", lengths, self.key.dims[0])?
            }
        };
        require(rows.len() == tokens.ranges.len(), || {
            format!("{} lengths of {} sequences", rows.len(), tokens.ranges.len())
        })?;
        let most = if self.block_table.is_some() { MAX_QUERY } else { usize::MAX };
        let sequence = |(tokens, rows): (&Range<usize>, Range<usize>)| {
            if tokens.len() > most || rows.len() < tokens.len() {
                return Err(wrong_size(format!("{} tokens of a sequence of {}", tokens.len(), rows.len())));
            }
            Ok(Sequence { tokens: tokens.clone(), rows })
        };
        tokens.ranges.iter().zip(rows).map(sequence).collect()
    }

    fn paged(&self, table: &View, lengths: &[i64], block_size: i64, num_heads: i64) -> Outcome<Vec<Range<usize>>> {
        if block_size % BLOCK_UNIT != 0 || !(1..=MAX_BLOCK).contains(&block_size) {
            return Err(wrong_size(format!("blocks of {block_size}")));
        }
        let (blocks, size) = (self.key.dims[0], block_size as usize);
        same_shape("key", &self.key.dims, &[blocks, size, LATENT_WIDTH])?;
        require(self.value == self.key, || "value is not the memory of key".into())?;
        same_shape("keyRopeOptional", &self.key_rope.dims, &[blocks, size, ROPE_WIDTH])?;
        require(num_heads == 1, || format!("{num_heads} key heads over the cache"))?;
        require(table.dims.len() == 2 && table.dims[0] == lengths.len(), || {
            format!("{:?} blocks of {} sequences", table.dims, lengths.len())
        })?;
        dense("blockTableOptional", table)?;
        let most = (table.dims[1] * size) as i64;
        require(lengths.iter().all(|length| (1..=most).contains(length)), || {
            format!("sequences of {lengths:?} in a table for {most}")
        })?;
        Ok(lengths.iter().map(|length| 0..*length as usize).collect())
    }

    /// Which row of the tensors, seen as rows of one key head or of all, holds a position of a sequence.
    fn places(&self, number: usize, rows: &Range<usize>) -> Result<Vec<usize>, String> {
        let Some(table) = &self.block_table else { return Ok(rows.clone().collect()) };
        let (blocks, per_sequence, size) = (table.integers(), table.dims[1], self.key.dims[1]);
        let place = |position: usize| {
            let block = blocks[number * per_sequence + position / size];
            let known = usize::try_from(block).ok().filter(|block| *block < self.key.dims[0]);
            Ok(known.ok_or_else(|| format!("block {block}"))? * size + position % size)
        };
        rows.clone().map(place).collect()
    }
}

struct Attention {
    sequences: Vec<Sequence>,
    is_causal: bool,
    query: View,
    query_rope: View,
    keys: Keys,
    scale: f32,
    out: View,
    num_heads: usize,
}

/// Rows of a tensor, `[rows, heads, width]`, in f32.
struct Rows {
    values: Vec<f32>,
    heads: usize,
    width: usize,
}

impl Rows {
    /// Of chosen rows.
    fn new(view: &View, places: &[usize], heads: usize) -> Self {
        let width = *view.dims.last().unwrap_or(&1);
        let row = |place: &usize| {
            let (dims, strides) = (vec![heads * width], vec![1]);
            View { dims, strides, offset: view.offset + place * heads * width, ..view.clone() }.floats()
        };
        Self { values: places.iter().flat_map(row).collect(), heads, width }
    }

    /// A head of a row; one head stands for all.
    fn head(&self, row: usize, head: usize) -> &[f32] {
        &self.values[(row * self.heads + head % self.heads) * self.width..][..self.width]
    }
}

impl Attention {
    fn check(&self, num_key_heads: i64) -> Outcome<()> {
        let wrong = || wrong_size(format!("queries {:?} of {} heads", self.query.dims, self.num_heads));
        let (Some((&width, rows)), heads) = (self.query.dims.split_last(), self.num_heads) else {
            return Err(wrong());
        };
        let Keys { key, value, key_rope, block_table } = &self.keys;
        let fits = match (width, block_table) {
            (LATENT_WIDTH, Some(_)) => heads.is_power_of_two() && heads <= MAX_LATENT_HEADS,
            (HEAD_WIDTH, None) => (1..=MAX_HEADS).contains(&heads),
            _ => false,
        };
        if !fits || rows.last() != Some(&heads) {
            return Err(wrong());
        }
        same_shape("queryRopeOptional", &self.query_rope.dims, &[rows, &[ROPE_WIDTH]].concat())?;
        same_shape("attentionOut", &self.out.dims, &self.query.dims)?;
        if block_table.is_none() {
            require(num_key_heads == heads as i64, || format!("{num_key_heads} key heads of {heads}"))?;
            same_shape("key", &key.dims, &[key.dims[0], heads, HEAD_WIDTH])?;
            same_shape("value", &value.dims, &key.dims)?;
            same_shape("keyRopeOptional", &key_rope.dims, &[key.dims[0], heads, ROPE_WIDTH])?;
        }
        [&self.query, &self.query_rope, key, value, key_rope, &self.out]
            .into_iter()
            .try_for_each(|view| dense("an operand", view))
    }

    fn run(&self, mask: Option<&View>) -> Result<(), String> {
        if let Some(mask) = mask {
            let values = mask.integers();
            let is_triangle = (0..MASK_SIDE * MASK_SIDE).all(|i| values[i] == i64::from(i % MASK_SIDE > i / MASK_SIDE));
            if !is_triangle {
                return Err("the mask is not 1 above the diagonal alone".into());
            }
        }
        let mut out = Vec::with_capacity(self.out.num_elements());
        for (number, sequence) in self.sequences.iter().enumerate() {
            self.attend(number, sequence, &mut out)?;
        }
        self.out.write(&out);
        Ok(())
    }

    fn attend(&self, number: usize, sequence: &Sequence, out: &mut Vec<f32>) -> Result<(), String> {
        let Keys { key, value, key_rope, block_table } = &self.keys;
        let places = self.keys.places(number, &sequence.rows)?;
        let key_heads = if block_table.is_some() { 1 } else { self.num_heads };
        let [keys, values, ropes] = [key, value, key_rope].map(|view| Rows::new(view, &places, key_heads));
        let tokens: Vec<usize> = sequence.tokens.clone().collect();
        let [queries, rotated] = [&self.query, &self.query_rope].map(|view| Rows::new(view, &tokens, self.num_heads));
        for token in 0..tokens.len() {
            let hidden = if self.is_causal { tokens.len() - token - 1 } else { 0 };
            for head in 0..self.num_heads {
                let (q, r) = (queries.head(token, head), rotated.head(token, head));
                let score = |row: usize| self.scale * (dot(q, keys.head(row, head)) + dot(r, ropes.head(row, head)));
                let mut scores: Vec<f32> = (0..places.len() - hidden).map(score).collect();
                softmax(&mut scores);
                let mut sum = vec![0.0; values.width];
                for (row, weight) in scores.iter().enumerate() {
                    sum.iter_mut().zip(values.head(row, head)).for_each(|(sum, value)| *sum += weight * value);
                }
                out.extend(sum);
            }
        }
        Ok(())
    }
}
