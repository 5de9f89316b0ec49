use engine_core::backend::{ActTensor, Backend, PrepareError, Tensor};
use engine_core::quant::{Fp8BlockWeight, HostWeight, Int4GroupWeight, MatrixShape, ScaleFormat, WeightFormat};
use engine_core::reference::{Numerics, ReferenceBackend};

use super::world::{FORMATS, Random, assert_close, cpu, tensor};
use crate::{CpuBackend, CpuOptions, MlaForm, SimdLevel};

/// Output and input features: whole and ragged blocks, chunks and register tiles, more than one span.
const SHAPES: [(usize, usize); 9] =
    [(1, 16), (7, 8), (5, 96), (33, 160), (64, 576), (130, 250), (18, 1024), (9, 1408), (6, 2200)];

fn linear(backend: &CpuBackend, weight: &HostWeight, x: &[f32]) -> Vec<f32> {
    let MatrixShape { out_features, in_features } = weight.shape();
    let linear = backend.prepare_linear(weight.clone()).unwrap();
    let x = tensor(backend, in_features, x);
    let mut out: ActTensor<CpuBackend> = Tensor::alloc(backend, x.rows() + 1, out_features).unwrap();
    out.as_mut_slice().fill(77.0);
    out.set_rows(x.rows());
    let mut stream = backend.stream().unwrap();
    backend.linear(&mut stream, &linear, &x, &mut out).unwrap();
    let found = out.as_slice().to_vec();
    out.set_rows(x.rows() + 1);
    assert!(out.row(x.rows()).iter().all(|v| *v == 77.0), "a row past the live ones was written");
    found
}

/// `x Wᵀ` in f64 from the weight's rows as the quantisation module defines them.
fn expected(weight: &HostWeight, x: &[f32]) -> Vec<f32> {
    let MatrixShape { out_features, in_features } = weight.shape();
    let mut out = vec![0.0; x.len() / in_features * out_features];
    let mut row = vec![0.0; in_features];
    for o in 0..out_features {
        weight.row_f32(o, &mut row);
        for (t, x) in x.chunks(in_features).enumerate() {
            let sum: f64 = row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            out[t * out_features + o] = sum as f32;
        }
    }
    out
}

#[test]
fn every_format_shape_and_batch_agrees_with_f64() {
    for level in SimdLevel::available() {
        let backend = cpu(level, MlaForm::Absorbed);
        for (seed, (out_features, in_features)) in SHAPES.into_iter().enumerate() {
            for format in FORMATS {
                let mut random = Random::new(seed as u64 + 1);
                let weight = random.weight(format, out_features, in_features);
                for num_tokens in [1, 2, 3, 4, 5, 6, 7, 13, 40] {
                    let x = random.values(num_tokens * in_features);
                    let what = format!("{level} {format} [{out_features}, {in_features}] x {num_tokens}");
                    // Sixteen lanes and a tree: far below the worst case of in_features roundings.
                    assert_close(&linear(&backend, &weight, &x), &expected(&weight, &x), 2e-6, &what);
                }
            }
        }
    }
}

#[test]
fn a_token_has_the_same_bits_in_every_batch() {
    for level in SimdLevel::available() {
        let backend = cpu(level, MlaForm::Absorbed);
        for format in FORMATS {
            for (out_features, in_features) in [(70, 160), (37, 2200)] {
                let mut random = Random::new(3);
                let weight = random.weight(format, out_features, in_features);
                let x = random.values(300 * in_features);
                let alone: Vec<f32> =
                    x.chunks(in_features).take(14).flat_map(|x| linear(&backend, &weight, x)).collect();
                for num_tokens in [2, 3, 4, 5, 6, 7, 8, 13, 300] {
                    let batch = linear(&backend, &weight, &x[..num_tokens * in_features]);
                    let len = batch.len().min(alone.len());
                    assert_eq!(batch[..len], alone[..len], "{level} {format} in a batch of {num_tokens}");
                }
            }
        }
    }
}

#[test]
fn levels_with_fused_multiply_add_agree_bit_for_bit() {
    let fused: Vec<SimdLevel> = SimdLevel::available().filter(|level| *level != SimdLevel::Portable).collect();
    for pair in fused.windows(2) {
        for format in FORMATS {
            let mut random = Random::new(4);
            let weight = random.weight(format, 37, 2200);
            for num_tokens in [1, 9] {
                let x = random.values(num_tokens * 2200);
                let results = [0, 1].map(|i| linear(&cpu(pair[i], MlaForm::Absorbed), &weight, &x));
                assert_eq!(results[0], results[1], "{} and {}, {format}", pair[0], pair[1]);
            }
        }
    }
}

#[test]
fn a_nan_in_the_checkpoint_is_not_hidden() {
    for level in SimdLevel::available() {
        let shape = MatrixShape::new(2, 40);
        for position in [3, 39] {
            let mut values = vec![0x38; 80];
            values[position] = 0xFF;
            let scales = vec![1.0];
            let weight = Fp8BlockWeight::new(shape, values.into(), scales.into(), ScaleFormat::F32).unwrap();
            let backend = cpu(level, MlaForm::Absorbed);
            let found = linear(&backend, &HostWeight::Fp8Block(weight), &[1.0; 40]);
            assert!(found[0].is_nan() && found[1] == 40.0, "{level}: {found:?}");
        }
    }
}

#[test]
fn norm_embedding_and_elementwise_ops_agree_with_the_reference() {
    let reference = ReferenceBackend::new(Numerics::default());
    let backend = cpu(SimdLevel::detect(), MlaForm::Absorbed);
    let (mut stream, mut reference_stream) = (backend.stream().unwrap(), reference.stream().unwrap());
    let mut random = Random::new(5);
    let cols = 250;
    let x = random.values(90 * cols);
    let (a, b) = (tensor(&backend, cols, &x), tensor(&reference, cols, &x));
    let weight = random.values(cols);
    let (mut out, mut expected) = (tensor(&backend, cols, &x), tensor(&reference, cols, &x));

    backend.rms_norm(&mut stream, &backend.prepare_norm(&weight, 1e-6).unwrap(), &a, &mut out).unwrap();
    let norm = reference.prepare_norm(&weight, 1e-6).unwrap();
    reference.rms_norm(&mut reference_stream, &norm, &b, &mut expected).unwrap();
    assert_close(out.as_slice(), expected.as_slice(), 3e-7, "norm");

    backend.add(&mut stream, &a, &mut out).unwrap();
    reference.add(&mut reference_stream, &b, &mut expected).unwrap();
    assert_close(out.as_slice(), expected.as_slice(), 3e-7, "add");

    let ids: Vec<u32> = (0..90).map(|_| random.below(90) as u32).collect();
    let rows = Tensor::from_slice(&backend, &mut stream, 1, &ids).unwrap();
    backend.gather_rows(&mut stream, &a, &rows, &mut out).unwrap();
    assert!(ids.iter().enumerate().all(|(i, id)| out.row(i) == a.row(*id as usize)));

    let table = random.weight(WeightFormat::Bf16, 90, cols);
    let mut row = vec![0.0; cols];
    backend.embed(&mut stream, &backend.prepare_embedding(table.clone()).unwrap(), &rows, &mut out).unwrap();
    for (i, id) in ids.iter().enumerate() {
        table.row_f32(*id as usize, &mut row);
        assert_eq!(out.row(i), row);
    }

    let mut wide = Tensor::alloc(&backend, 90, 2 * cols).unwrap();
    backend.concat(&mut stream, &out, &a, &mut wide).unwrap();
    assert!((0..90).all(|t| wide.row(t)[..cols] == *out.row(t) && wide.row(t)[cols..] == *a.row(t)));
}

#[test]
fn what_cannot_run_is_refused_with_a_reason() {
    let backend = cpu(SimdLevel::detect(), MlaForm::Absorbed);
    let groups_of_six =
        Int4GroupWeight::new(MatrixShape::new(1, 12), 6, vec![0; 8].into(), vec![1.0; 2].into()).unwrap();
    let huge =
        Fp8BlockWeight::new(MatrixShape::new(1, 1), vec![0].into(), vec![2e38].into(), ScaleFormat::F32).unwrap();
    for (weight, words) in [
        (HostWeight::Int4Group(groups_of_six), "groups hold 6 values"),
        (HostWeight::Fp8Block(huge), "a scale is 2e38"),
    ] {
        let error = backend.prepare_linear(weight).unwrap_err();
        assert!(matches!(&error, PrepareError::Unsupported(e) if e.reason.contains(words)), "{error}");
    }
    let error = CpuBackend::new(CpuOptions { threads: Some(0), ..CpuOptions::default() }).unwrap_err();
    assert!(error.to_string().contains("0 threads"), "{error}");
}

#[test]
fn capabilities_name_the_level_and_the_threads() {
    for level in SimdLevel::available() {
        let capabilities = cpu(level, MlaForm::Absorbed).capabilities().clone();
        assert!(capabilities.notes.contains(&format!("{level} kernels")), "{capabilities:?}");
        assert!(capabilities.notes.contains(&"3 threads".to_owned()), "{capabilities:?}");
        assert!(FORMATS.iter().all(|format| capabilities.weight_formats.contains(format)));
    }
}
