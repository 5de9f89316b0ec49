//! Rope, and the paged cache.

use std::ffi::c_char;

use super::{broadcast, dense, same_shape};
use crate::api::{operators, text};
use crate::operator::{require, wrong_size};
use crate::tensor::DataType::{Bf16, F32, I32, I64};
use crate::tensor::View;

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
}
