//! Typed weights, against values worked out by hand.

use super::*;

fn shape(out_features: usize, in_features: usize) -> MatrixShape {
    MatrixShape::new(out_features, in_features)
}

fn linear(
    tensors: &[Tensor<'_>],
    shape: MatrixShape,
    quantization: Option<QuantizationConfig>,
) -> Result<HostWeight, CheckpointError> {
    open(&single(&shard(tensors))).linear(P, shape, quantization.as_ref())
}

fn row(weight: &HostWeight, row: usize) -> Vec<f32> {
    let mut out = vec![0.0; weight.shape().in_features];
    weight.row_f32(row, &mut out);
    out
}

#[test]
fn floats() {
    let values = [1.0, -2.0, 0.5, 4.0, 8.0, -16.0];
    for (dtype, bytes, format) in
        [("BF16", bf16s(&values), WeightFormat::Bf16), ("F32", f32s(&values), WeightFormat::F32)]
    {
        let checkpoint = open(&single(&shard(&[("l.weight", dtype, vec![2, 3], bytes)])));
        for weight in [checkpoint.linear(P, shape(2, 3), Some(&FP8)), checkpoint.plain(P, shape(2, 3))] {
            let weight = weight.unwrap();
            assert_eq!((weight.format(), row(&weight, 1)), (format, values[3..].to_vec()));
        }
    }
}

/// 130 x 129 needs 2 x 2 scale blocks, three of them ragged; byte 0x38 is 1.0.
#[test]
fn fp8_with_every_type_of_scale() {
    let scales = [1.0, 2.0, 0.25, 8.0];
    let e8m0 = vec![127u8, 128, 125, 130];
    for (dtype, bytes) in [("F32", f32s(&scales)), ("BF16", bf16s(&scales)), ("F8_E8M0", e8m0)] {
        let tensors = [
            ("l.weight", "F8_E4M3", vec![130, 129], vec![0x38; 130 * 129]),
            ("l.weight_scale_inv", dtype, vec![2, 2], bytes),
        ];
        for ue8m0 in [false, true] {
            let config = QuantizationConfig::Fp8Block { block: (128, 128), ue8m0 };
            let weight = linear(&tensors, shape(130, 129), Some(config)).unwrap();
            assert_eq!((row(&weight, 127)[127], row(&weight, 127)[128]), (1.0, 2.0));
            assert_eq!((row(&weight, 128)[0], row(&weight, 129)[128]), (0.25, 8.0));
            let HostWeight::Fp8Block(weight) = weight else { panic!("{dtype}") };
            let is_ue8m0 = ue8m0 || dtype == "F8_E8M0";
            assert_eq!(weight.scale_format() == ScaleFormat::Ue8m0, is_ue8m0, "{dtype}");
        }
    }
}

#[test]
fn a_scale_in_another_file() {
    let weight = shard(&[("l.weight", "F8_E4M3", vec![1, 2], vec![0x38, 0x40])]);
    let scale = shard(&[("l.weight_scale_inv", "F32", vec![1, 1], f32s(&[0.5]))]);
    let map = json!({"l.weight": "a.safetensors", "l.weight_scale_inv": "b.safetensors"});
    let dir = indexed(map, &[("a.safetensors", weight), ("b.safetensors", scale)]);
    let weight = open(&dir).linear(P, shape(1, 2), Some(&FP8)).unwrap();
    assert_eq!(row(&weight, 0), [0.5, 1.0]);
}

#[test]
fn int8() {
    for (scale_shape, dtype, scales) in [(vec![2], "F32", f32s(&[0.5, 2.0])), (vec![2, 1], "BF16", bf16s(&[0.5, 2.0]))]
    {
        let values = vec![1, 255, 127, 129];
        let tensors = [("l.weight", "I8", vec![2, 2], values), ("l.weight_scale", dtype, scale_shape, scales)];
        let weight = linear(&tensors, shape(2, 2), Some(QuantizationConfig::Int8Channel)).unwrap();
        assert_eq!((row(&weight, 0), row(&weight, 1)), (vec![0.5, -0.5], vec![254.0, -254.0]));
    }
}

fn int4(scale: Vec<u8>, stored_shape: [i64; 2]) -> [Tensor<'static>; 3] {
    // Ten values a row: two words, the second padded. Nibble n stands for n - 8, low nibble first.
    let words: [u32; 2] = [0x7654_3210, 0x0000_00FE];
    let packed = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let stored_shape = stored_shape.iter().flat_map(|n| n.to_le_bytes()).collect();
    [
        ("l.weight_packed", "I32", vec![1, 2], packed),
        ("l.weight_scale", "BF16", vec![1, 3], scale),
        ("l.weight_shape", "I64", vec![2], stored_shape),
    ]
}

#[test]
fn int4_groups() {
    let config = Some(QuantizationConfig::Int4Group { group_size: 4 });
    let tensors = int4(bf16s(&[1.0, 2.0, 0.5]), [1, 10]);
    let weight = linear(&tensors, shape(1, 10), config).unwrap();
    assert_eq!(row(&weight, 0), [-8.0, -7.0, -6.0, -5.0, -8.0, -6.0, -4.0, -2.0, 3.0, 3.5]);

    says(&linear(&tensors, shape(1, 10), None).unwrap_err(), &["l.weight_packed", "no quantization_config"]);
    let error = linear(&int4(bf16s(&[1.0; 3]), [1, 16]), shape(1, 10), config).unwrap_err();
    says(&error, &["the shape in l.weight_shape", "[1, 16]", "[1, 10]"]);
    let error = linear(&tensors[..2], shape(1, 10), config).unwrap_err();
    says(&error, &["l.weight_packed is I32 and needs l.weight_shape"]);
    let error = linear(&int4(bf16s(&[1.0, f32::NAN, 1.0]), [1, 10]), shape(1, 10), config).unwrap_err();
    says(&error, &["l.weight_scale", "scale 1 is NaN"]);
}

#[test]
fn values_are_views_of_the_mapped_file() {
    let checkpoint = Checkpoint::open(&model_dir("tiny-deepseek-v3-fp8")).unwrap();
    let prefix = "model.layers.0.mlp.gate_proj";
    let HostWeight::Fp8Block(weight) = checkpoint.linear(prefix, shape(640, 256), Some(&FP8)).unwrap() else {
        panic!("not fp8")
    };
    let bytes = checkpoint.bytes("model.layers.0.mlp.gate_proj.weight").unwrap();
    assert_eq!(weight.values().as_ptr(), bytes.as_ptr());
    // Weights outlive the checkpoint they came from.
    let copy = bytes.to_vec();
    drop(checkpoint);
    assert_eq!(&**weight.values(), copy);
}

#[test]
fn tensors_at_every_alignment_are_read() {
    for padding in 0..8 {
        let pad = ("pad", "U8", vec![padding], vec![7; padding]);
        let tensors = [pad, ("l.weight", "F32", vec![1, 2], f32s(&[1.5, -2.5]))];
        assert_eq!(row(&linear(&tensors, shape(1, 2), None).unwrap(), 0), [1.5, -2.5], "{padding}");
    }
}

#[test]
fn vectors() {
    let tensors = [("v", "F32", vec![2], f32s(&[1.5, -1.0])), ("w", "BF16", vec![2], bf16s(&[2.0, 0.5]))];
    let checkpoint = open(&single(&shard(&tensors)));
    assert_eq!(checkpoint.vector_f32("v", 2).unwrap(), [1.5, -1.0]);
    assert_eq!(checkpoint.vector_f32("w", 2).unwrap(), [2.0, 0.5]);
    says(&checkpoint.vector_f32("v", 3).unwrap_err(), &["v has shape [2], config.json asks for [3]"]);
    says(&checkpoint.vector_f32("u", 2).unwrap_err(), &["no tensor u, which config.json asks for"]);
}

#[test]
fn what_is_wrong_with_a_linear_is_named() {
    let weight = |dtype, dims: [usize; 2], bytes| ("l.weight", dtype, dims.to_vec(), vec![0u8; bytes]);
    let scale = |name, dtype, dims: &[usize], bytes| (name, dtype, dims.to_vec(), bytes);
    let inv = "l.weight_scale_inv";
    let cases: [(Vec<Tensor<'_>>, &[&str]); 11] = [
        (vec![("x", "U8", vec![1], vec![0])], &["no tensor l.weight"]),
        (vec![weight("BF16", [3, 2], 12)], &["l.weight has shape [3, 2], config.json asks for [2, 2]"]),
        (vec![weight("F16", [2, 2], 8)], &["l.weight is F16, accepted are BF16, F32, F8_E4M3 and I8"]),
        (vec![weight("F8_E4M3", [2, 2], 4)], &["l.weight is F8_E4M3 and needs l.weight_scale_inv"]),
        (vec![weight("I8", [2, 2], 4)], &["l.weight is I8 and needs l.weight_scale"]),
        (
            vec![weight("F8_E4M3", [2, 2], 4), scale(inv, "F32", &[2, 1], f32s(&[1.0, 1.0]))],
            &["l.weight_scale_inv has shape [2, 1], config.json asks for [1, 1]"],
        ),
        (
            vec![weight("F8_E4M3", [2, 2], 4), scale(inv, "F16", &[1, 1], vec![0; 2])],
            &["l.weight_scale_inv is F16, accepted are F32, BF16 and F8_E8M0"],
        ),
        (
            vec![weight("F8_E4M3", [2, 2], 4), scale(inv, "F32", &[1, 1], f32s(&[f32::NAN]))],
            &["model.safetensors: l.weight_scale_inv: scale 0 is NaN"],
        ),
        (
            vec![weight("F8_E4M3", [2, 2], 4), scale(inv, "F8_E8M0", &[1, 1], vec![0xFF])],
            &["l.weight_scale_inv: scale 0 is NaN"],
        ),
        (
            vec![weight("I8", [2, 2], 4), scale("l.weight_scale", "F32", &[2], f32s(&[1.0, -1.0]))],
            &["l.weight_scale: scale 1 is -1"],
        ),
        (
            vec![weight("I8", [2, 2], 4), scale("l.weight_scale", "F32", &[1], f32s(&[1.0]))],
            &["l.weight_scale has shape [1]"],
        ),
    ];
    for (tensors, parts) in cases {
        says(&linear(&tensors, shape(2, 2), Some(FP8)).unwrap_err(), parts);
    }
    let tensors =
        [("l.weight", "F8_E4M3", vec![1, 1], vec![0]), ("l.weight_scale_inv", "F32", vec![1, 1], f32s(&[1.0]))];
    let checkpoint = open(&single(&shard(&tensors)));
    says(&checkpoint.plain(P, shape(1, 1)).unwrap_err(), &["l.weight is F8_E4M3, accepted are BF16 and F32"]);
}
