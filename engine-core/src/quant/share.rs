//! Parts of a weight: what a rank of a group holds of it.

use std::ops::Range;

use bytemuck::Pod;

use super::{
    Bf16Weight, F32Weight, FP8_BLOCK, Fp8BlockWeight, HostWeight, Int4GroupWeight, Int8ChannelWeight, MatrixShape,
    SharedSlice, WeightError,
};

impl HostWeight {
    /// Output rows `range`, with their scales: `y[range] = x rows(range)ᵀ`. Values are shared, not copied.
    ///
    /// # Errors
    /// [`WeightError::Cut`] when the range begins or ends inside an FP8 block that it does not lie in as a whole.
    ///
    /// # Panics
    /// If the range is empty or reaches past the last row: a bug of the caller.
    pub fn rows(&self, range: Range<usize>) -> Result<Self, WeightError> {
        let width = self.shape().in_features;
        let shape = MatrixShape::new(range.len(), width);
        let values = range.start * width..range.end * width;
        Ok(match self {
            HostWeight::F32(w) => HostWeight::F32(F32Weight::new(shape, w.values().slice(values))?),
            HostWeight::Bf16(w) => HostWeight::Bf16(Bf16Weight::new(shape, w.values().slice(values))?),
            HostWeight::Fp8Block(w) => {
                let blocks = whole_blocks("rows", &range, FP8_BLOCK)?;
                let per_row = width.div_ceil(FP8_BLOCK);
                let scales = w.scales().slice(blocks.start * per_row..blocks.end * per_row);
                HostWeight::Fp8Block(Fp8BlockWeight::new(shape, w.values().slice(values), scales, w.scale_format())?)
            }
            HostWeight::Int8Channel(w) => {
                let scales = w.scales().slice(range);
                HostWeight::Int8Channel(Int8ChannelWeight::new(shape, w.values().slice(values), scales)?)
            }
            HostWeight::Int4Group(w) => {
                let (row_bytes, groups) = (Int4GroupWeight::row_bytes(width), width.div_ceil(w.group_size()));
                let packed = w.packed().slice(range.start * row_bytes..range.end * row_bytes);
                let scales = w.scales().slice(range.start * groups..range.end * groups);
                HostWeight::Int4Group(Int4GroupWeight::new(shape, w.group_size(), packed, scales)?)
            }
        })
    }

    /// Input columns `range`, with their scales: the products of all ranks' columns add up to the whole weight's. The
    /// values are copied.
    ///
    /// # Errors
    /// [`WeightError::Cut`] when the range begins or ends inside an FP8 block, an INT4 group or word that it does not lie in
    /// as a whole.
    ///
    /// # Panics
    /// If the range is empty or reaches past the last column: a bug of the caller.
    pub fn columns(&self, range: Range<usize>) -> Result<Self, WeightError> {
        let width = self.shape().in_features;
        let shape = MatrixShape::new(self.shape().out_features, range.len());
        Ok(match self {
            HostWeight::F32(w) => HostWeight::F32(F32Weight::new(shape, copied(w.values(), width, &range))?),
            HostWeight::Bf16(w) => HostWeight::Bf16(Bf16Weight::new(shape, copied(w.values(), width, &range))?),
            HostWeight::Fp8Block(w) => {
                let blocks = whole_blocks("columns", &range, FP8_BLOCK)?;
                let scales = copied(w.scales(), width.div_ceil(FP8_BLOCK), &blocks);
                let values = copied(w.values(), width, &range);
                HostWeight::Fp8Block(Fp8BlockWeight::new(shape, values, scales, w.scale_format())?)
            }
            HostWeight::Int8Channel(w) => {
                let values = copied(w.values(), width, &range);
                HostWeight::Int8Channel(Int8ChannelWeight::new(shape, values, w.scales().clone())?)
            }
            HostWeight::Int4Group(w) => {
                let groups = whole_blocks("columns", &range, w.group_size())?;
                let scales = copied(w.scales(), width.div_ceil(w.group_size()), &groups);
                let row_bytes = Int4GroupWeight::row_bytes(width);
                let packed = copied(w.packed(), row_bytes, &packed_bytes(&range, width)?);
                HostWeight::Int4Group(Int4GroupWeight::new(shape, w.group_size(), packed, scales)?)
            }
        })
    }
}

/// The blocks that a range consists of, or the one that it lies in.
fn whole_blocks(what: &'static str, range: &Range<usize>, block: usize) -> Result<Range<usize>, WeightError> {
    let blocks = range.start / block..range.end.div_ceil(block);
    if range.start.is_multiple_of(block) || blocks.len() == 1 {
        Ok(blocks)
    } else {
        Err(WeightError::Cut { tensor: "weight".into(), what, start: range.start, end: range.end, block })
    }
}

/// Bytes of a packed INT4 row of `width` values that hold the columns `range`: whole words of 8 values.
fn packed_bytes(range: &Range<usize>, width: usize) -> Result<Range<usize>, WeightError> {
    const WORD: usize = 8;
    let ends_whole = range.end.is_multiple_of(WORD) || range.end == width;
    if range.start.is_multiple_of(WORD) && ends_whole {
        return Ok(range.start / WORD * 4..range.end.div_ceil(WORD) * 4);
    }
    Err(WeightError::Cut { tensor: "weight".into(), what: "columns", start: range.start, end: range.end, block: WORD })
}

/// Columns `range` of a row-major matrix of `width` columns.
fn copied<T: Pod + Send + Sync>(values: &SharedSlice<T>, width: usize, range: &Range<usize>) -> SharedSlice<T> {
    if range.len() == width {
        return values.clone();
    }
    let rows = values.chunks_exact(width);
    let mut part = Vec::with_capacity(rows.len() * range.len());
    rows.for_each(|row| part.extend_from_slice(&row[range.clone()]));
    part.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::quant::WeightFormat;

    const SHAPE: MatrixShape = MatrixShape { out_features: 300, in_features: 416 };

    fn weight(format: WeightFormat) -> HostWeight {
        let values = (0..SHAPE.num_elements()).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect::<Vec<_>>();
        HostWeight::F32(F32Weight::new(SHAPE, values.into()).unwrap()).convert(format).unwrap()
    }

    fn rows(weight: &HostWeight) -> Vec<Vec<f32>> {
        let MatrixShape { out_features, in_features } = weight.shape();
        let row = |row| {
            let mut values = vec![0.0; in_features];
            weight.row_f32(row, &mut values);
            values
        };
        (0..out_features).map(row).collect()
    }

    const FORMATS: [WeightFormat; 5] = [
        WeightFormat::F32,
        WeightFormat::Bf16,
        WeightFormat::Fp8Block,
        WeightFormat::Int8Channel,
        WeightFormat::Int4Group,
    ];

    /// Real values of a part are those of the whole: a part brings its own scales.
    #[test]
    fn parts_hold_the_values_of_the_whole() {
        for format in FORMATS {
            let whole = weight(format);
            for range in [0..128, 128..300, 130..200, 256..300, 0..300] {
                let part = whole.rows(range.clone()).unwrap();
                assert_eq!(part.shape(), MatrixShape::new(range.len(), SHAPE.in_features));
                assert_eq!(rows(&part), rows(&whole)[range.clone()], "{format}, rows {range:?}");
            }
            for range in [0..128, 128..416, 136..144, 256..416, 0..416] {
                let part = whole.columns(range.clone()).unwrap();
                assert_eq!(part.shape(), MatrixShape::new(SHAPE.out_features, range.len()));
                let expected: Vec<_> = rows(&whole).iter().map(|row| row[range.clone()].to_vec()).collect();
                assert_eq!(rows(&part), expected, "{format}, columns {range:?}");
            }
        }
    }

    #[test]
    fn what_shares_a_scale_is_not_cut() {
        let message = |part: Result<HostWeight, WeightError>| part.unwrap_err().named("up_proj.weight").to_string();
        assert_eq!(
            message(weight(WeightFormat::Fp8Block).rows(64..192)),
            "up_proj.weight: rows 64..192 cut a block of 128 that shares a scale; choose another precision for it or \
             another tensor_parallel_size"
        );
        assert!(
            message(weight(WeightFormat::Fp8Block).columns(192..416)).contains("columns 192..416 cut a block of 128")
        );
        assert!(
            message(weight(WeightFormat::Int4Group).columns(40..128)).contains("columns 40..128 cut a block of 32")
        );
        assert!(message(weight(WeightFormat::Int4Group).columns(4..16)).contains("columns 4..16 cut a block of 8"));
        for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8Channel] {
            assert!(weight(format).rows(1..299).is_ok() && weight(format).columns(1..415).is_ok(), "{format}");
        }
    }
}
