//! Conversions against formulas in f64.
#![allow(clippy::unwrap_used)]

use half::bf16;

use super::*;
use crate::quant::fp8::{e4m3_from_f32, e4m3_to_f32};
use crate::quant::{
    FP8_BLOCK, Fp8BlockWeight, INT4_GROUP, Int4GroupWeight, Int8ChannelWeight, MatrixShape, ScaleFormat,
};

/// Ragged and published shapes: 576 = 4.5 row blocks, 1408 = 11 blocks, 10944 = 85.5 blocks, odd sizes, one value.
const SHAPES: [(usize, usize); 7] = [(1, 1), (3, 37), (160, 200), (128, 256), (576, 65), (5, 1408), (2, 10944)];

/// Roughly normal values (sum of uniforms) from a fixed 64-bit congruential sequence, row `r` scaled by 2^(r mod 5).
fn random_f32(shape: MatrixShape) -> HostWeight {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let values: Vec<f32> = (0..shape.num_elements())
        .map(|i| {
            let row = (i / shape.in_features) % 5;
            (0..4).map(|_| uniform()).sum::<f32>() * 0.02 * (1 << row) as f32
        })
        .collect();
    f32_weight(shape, values)
}

fn f32_weight(shape: MatrixShape, values: Vec<f32>) -> HostWeight {
    HostWeight::F32(F32Weight::new(shape, values.into()).unwrap())
}

fn shapes() -> impl Iterator<Item = MatrixShape> {
    SHAPES.into_iter().map(|(out, input)| MatrixShape::new(out, input))
}

fn real(weight: &HostWeight) -> Vec<Vec<f32>> {
    let shape = weight.shape();
    (0..shape.out_features)
        .map(|row| {
            let mut out = vec![0.0; shape.in_features];
            weight.row_f32(row, &mut out);
            out
        })
        .collect()
}

/// A weight that holds every finite e4m3 byte, in 128 x 128 blocks with different scales.
fn every_fp8_byte() -> Fp8BlockWeight {
    let shape = MatrixShape::new(130, 300);
    let bytes: Vec<u8> = (0..shape.num_elements())
        .map(|i| {
            let byte = (i % 256) as u8;
            if byte & 0x7F == 0x7F { byte - 1 } else { byte }
        })
        .collect();
    let scales = vec![1.0, 0.000_123_4, 3.7e-5, 0.333_333_34, 1.0e-3, 0.0];
    Fp8BlockWeight::new(shape, bytes.into(), scales.into(), ScaleFormat::F32).unwrap()
}

/// bf16 of an f32, to nearest, ties to even, by integer arithmetic on the bits.
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

#[test]
fn fp8_to_bf16_is_the_rounded_product_to_the_bit() {
    let weight = every_fp8_byte();
    let HostWeight::Bf16(converted) = HostWeight::Fp8Block(weight.clone()).convert(WeightFormat::Bf16).unwrap() else {
        panic!("wrong format");
    };
    for (i, (byte, found)) in weight.values().iter().zip(converted.values().iter()).enumerate() {
        let (row, column) = (i / 300, i % 300);
        let scale = weight.scales()[row / 128 * 3 + column / 128];
        // The product of a 4-bit and a 24-bit significand is exact in f64; its one rounding to f32 is the product's.
        let product = (f64::from(e4m3_to_f32(*byte)) * f64::from(scale)) as f32;
        assert_eq!(found.to_bits(), bf16_bits(product), "byte {byte:#x} × {scale}");
    }
}

#[test]
fn nan_is_refused_with_its_place() {
    let shape = MatrixShape::new(130, 140);
    let mut bytes = vec![0x30u8; shape.num_elements()];
    bytes[129 * 140 + 135] = 0xFF;
    bytes[129 * 140 + 139] = 0x7F;
    let weight = Fp8BlockWeight::new(shape, bytes.into(), vec![1.0f32; 4].into(), ScaleFormat::F32).unwrap();
    for target in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8Channel, WeightFormat::Int4Group] {
        match HostWeight::Fp8Block(weight.clone()).convert(target) {
            Err(WeightError::NotFinite { row: 129, column: 135, value, .. }) => assert!(value.is_nan()),
            other => panic!("{target}: {other:?}"),
        }
    }
}

#[test]
fn infinite_and_out_of_range_values_are_refused() {
    let shape = MatrixShape::new(1, 3);
    let infinite = f32_weight(shape, vec![0.0, 1.0, f32::NEG_INFINITY]);
    for target in [WeightFormat::Bf16, WeightFormat::Fp8Block, WeightFormat::Int8Channel, WeightFormat::Int4Group] {
        let error = infinite.convert(target).unwrap_err();
        assert!(matches!(error, WeightError::NotFinite { row: 0, column: 2, .. }), "{target}: {error}");
    }
    let edge = f32_weight(shape, vec![0.0, LARGEST_TO_BF16, -LARGEST_TO_BF16]).convert(WeightFormat::Bf16).unwrap();
    assert_eq!(real(&edge)[0][1], bf16::MAX.to_f32());
    let beyond = f32_weight(shape, vec![0.0, LARGEST_TO_BF16.next_up(), 0.0]).convert(WeightFormat::Bf16);
    assert!(matches!(beyond, Err(WeightError::NotFinite { row: 0, column: 1, .. })));
}

#[test]
fn int8_is_the_nearest_step_of_a_row_scale() {
    for shape in shapes() {
        let source = random_f32(shape);
        let HostWeight::Int8Channel(weight) = source.convert(WeightFormat::Int8Channel).unwrap() else {
            panic!("wrong format");
        };
        for (row, values) in real(&source).iter().enumerate() {
            let amax = values.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
            let scale = weight.scales()[row];
            assert!((f64::from(scale) / (amax / 127.0) - 1.0).abs() < 1e-6, "{shape} row {row}");
            for (q, w) in weight.values()[row * shape.in_features..].iter().zip(values) {
                let exact = (w / scale).round_ties_even().clamp(-127.0, 127.0);
                assert_eq!(f32::from(*q), exact);
                let error = (f64::from(*q) * f64::from(scale) - f64::from(*w)).abs();
                assert!(error <= f64::from(scale) * 0.500_01, "{shape} row {row}: {w} became {q} × {scale}");
            }
        }
    }
}

#[test]
fn int8_ties_go_to_the_even_step() {
    // Scale exactly 1: steps are the values themselves.
    let shape = MatrixShape::new(1, 6);
    let source = f32_weight(shape, vec![127.0, 0.5, 1.5, 2.5, -0.5, -3.5]);
    let HostWeight::Int8Channel(weight) = source.convert(WeightFormat::Int8Channel).unwrap() else {
        panic!("wrong format");
    };
    assert_eq!(weight.values().as_slice(), &[127, 0, 2, 2, 0, -4]);
}

#[test]
fn int4_errs_by_half_a_step_unless_clipped_and_beats_plain_rounding() {
    for shape in shapes() {
        let source = random_f32(shape);
        let HostWeight::Int4Group(weight) = source.convert(WeightFormat::Int4Group).unwrap() else {
            panic!("wrong format");
        };
        assert_eq!(weight.group_size(), INT4_GROUP);
        let back = real(&HostWeight::Int4Group(weight.clone()));
        let groups = shape.in_features.div_ceil(INT4_GROUP);
        for (row, values) in real(&source).iter().enumerate() {
            for (g, group) in values.chunks(INT4_GROUP).enumerate() {
                let scale = f64::from(weight.scales()[row * groups + g]);
                let (mut chosen, mut plain) = (0.0, 0.0);
                let step = group.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs()))) / 7.0;
                for (i, w) in group.iter().enumerate() {
                    let w = f64::from(*w);
                    let found = f64::from(back[row][g * INT4_GROUP + i]);
                    let clipped = w / scale > 7.5 || w / scale < -8.5;
                    assert!(clipped || (found - w).abs() <= scale * 0.500_01, "{shape}: {w} became {found}");
                    chosen += (found - w).powi(2);
                    plain += ((w / step).round_ties_even() * step - w).powi(2);
                }
                // The slack is the rounding of scale and product to f32.
                assert!(
                    chosen <= plain * 1.000_01 + (step * 1e-5).powi(2),
                    "{shape} row {row} group {g}: {chosen} above {plain}"
                );
            }
        }
    }
}

#[test]
fn int4_nibbles_are_packed_low_first_with_zero_padding() {
    // Scale 1 in the first group (7 and −7 exact), 11 columns: 8 + 3, so 5 nibbles of padding.
    let shape = MatrixShape::new(1, 11);
    let source = f32_weight(shape, vec![7.0, -7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -1.0, -2.0]);
    let HostWeight::Int4Group(weight) = source.convert(WeightFormat::Int4Group).unwrap() else {
        panic!("wrong format");
    };
    assert_eq!(weight.scales().as_slice(), &[1.0]);
    assert_eq!(weight.packed().as_slice(), &[0x1F, 0x98, 0xBA, 0xDC, 0x7E, 0x86, 0x88, 0x88]);
}

#[test]
fn fp8_scale_is_amax_of_the_block_over_448() {
    for shape in shapes() {
        let source = random_f32(shape);
        let HostWeight::Fp8Block(weight) = source.convert(WeightFormat::Fp8Block).unwrap() else {
            panic!("wrong format");
        };
        let values = real(&source);
        let back = real(&HostWeight::Fp8Block(weight.clone()));
        let block_columns = shape.in_features.div_ceil(FP8_BLOCK);
        for (i, scale) in weight.scales().iter().enumerate() {
            let (top, left) = (i / block_columns * FP8_BLOCK, i % block_columns * FP8_BLOCK);
            let rows = top..(top + FP8_BLOCK).min(shape.out_features);
            let columns = left..(left + FP8_BLOCK).min(shape.in_features);
            let mut largest = 0.0f64;
            for row in rows.clone() {
                for column in columns.clone() {
                    largest = largest.max(f64::from(values[row][column].abs()));
                }
            }
            assert!((f64::from(*scale) / (largest / 448.0) - 1.0).abs() < 1e-6, "{shape} block {i}");
            for row in rows {
                for column in columns.clone() {
                    let (w, found) = (f64::from(values[row][column]), f64::from(back[row][column]));
                    // Normals keep 4 significant bits; below 2^-6 the step is 2^-9.
                    let bound = (w.abs() / 16.0).max(f64::from(*scale) / 1024.0) * 1.000_01;
                    assert!((found - w).abs() <= bound, "{shape} ({row}, {column}): {w} became {found}");
                    assert_eq!(weight.values()[row * shape.in_features + column], e4m3_from_f32((w as f32) / scale));
                }
            }
        }
    }
}

#[test]
fn zero_and_vanishing_rows_get_scale_one() {
    let shape = MatrixShape::new(3, 40);
    let mut values = vec![0.0f32; shape.num_elements()];
    values[40..80].fill(1e-40);
    values[80..].fill(2.0);
    let source = f32_weight(shape, values);
    for target in [WeightFormat::Int8Channel, WeightFormat::Int4Group] {
        let converted = source.convert(target).unwrap();
        let scales = match &converted {
            HostWeight::Int8Channel(w) => w.scales(),
            HostWeight::Int4Group(w) => w.scales(),
            other => panic!("{other:?}"),
        };
        let per_row = scales.len() / 3;
        assert!(scales[..2 * per_row].iter().all(|s| *s == 1.0), "{target}");
        let back = real(&converted);
        assert!(back[0].iter().chain(&back[1]).all(|v| *v == 0.0), "{target}");
        assert!(back[2].iter().all(|v| (*v - 2.0).abs() < 1e-5), "{target}");
    }
    let zeros = f32_weight(shape, vec![0.0; shape.num_elements()]).convert(WeightFormat::Fp8Block).unwrap();
    let HostWeight::Fp8Block(zeros) = zeros else { panic!("wrong format") };
    assert_eq!(zeros.scales().as_slice(), &[1.0]);
    assert!(zeros.values().iter().all(|v| *v == 0));
}

#[test]
fn a_matrix_without_columns_or_rows_converts() {
    for shape in [MatrixShape::new(4, 0), MatrixShape::new(0, 4)] {
        let source = f32_weight(shape, Vec::new());
        for target in [WeightFormat::Bf16, WeightFormat::Fp8Block, WeightFormat::Int8Channel, WeightFormat::Int4Group] {
            assert_eq!(source.convert(target).unwrap().shape(), shape);
        }
    }
}

#[test]
fn integer_formats_come_back_as_value_times_scale() {
    let shape = MatrixShape::new(2, 3);
    let int8 = Int8ChannelWeight::new(shape, vec![1, -127, 0, 5, 6, 7].into(), vec![0.5, 0.1].into()).unwrap();
    let found = HostWeight::Int8Channel(int8).convert(WeightFormat::F32).unwrap();
    assert_eq!(real(&found), [[0.5, -63.5, 0.0], [5.0 * 0.1, 6.0 * 0.1, 7.0 * 0.1]]);
    let int4 = Int4GroupWeight::new(
        shape,
        32,
        vec![0xF0, 0x88, 0x88, 0x88, 0x79, 0x8A, 0x88, 0x88].into(),
        vec![0.5, 2.0].into(),
    );
    let found = HostWeight::Int4Group(int4.unwrap()).convert(WeightFormat::Bf16).unwrap();
    assert_eq!(real(&found), [[-4.0, 3.5, 0.0], [2.0, -2.0, 4.0]]);
}

#[test]
fn threads_do_not_change_a_bit() {
    let source = random_f32(MatrixShape::new(300, 200));
    let fp8 = source.convert(WeightFormat::Fp8Block).unwrap();
    let convert = |threads: usize, source: &HostWeight, target| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        real(&pool.install(|| source.convert(target)).unwrap())
    };
    for target in [WeightFormat::Bf16, WeightFormat::Int8Channel, WeightFormat::Int4Group] {
        assert_eq!(convert(1, &fp8, target), convert(7, &fp8, target), "{target}");
    }
    assert_eq!(convert(1, &source, WeightFormat::Fp8Block), convert(7, &source, WeightFormat::Fp8Block));
}

#[test]
fn auto_keeps_the_stored_format_and_the_same_format_shares_its_bytes() {
    assert_eq!(target_format(Precision::Auto, WeightFormat::Int4Group), WeightFormat::Int4Group);
    assert_eq!(target_format(Precision::Int8, WeightFormat::Fp8Block), WeightFormat::Int8Channel);
    let weight = every_fp8_byte();
    let HostWeight::Fp8Block(same) = HostWeight::Fp8Block(weight.clone()).convert(WeightFormat::Fp8Block).unwrap()
    else {
        panic!("wrong format");
    };
    assert_eq!(same.values().as_ptr(), weight.values().as_ptr());
}
