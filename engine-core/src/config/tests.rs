#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;

fn models() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models")
}

#[test]
fn the_tiny_models_parse_from_their_directories() {
    let bf16 = ModelConfig::from_dir(&models().join("tiny-deepseek-v3-bf16")).unwrap();
    let fp8 = ModelConfig::from_dir(&models().join("tiny-deepseek-v3-fp8")).unwrap();
    assert_eq!(bf16.quantization, None);
    assert_eq!(fp8.quantization, Some(QuantizationConfig::Fp8Block { block: (128, 128), ue8m0: false }));
    assert_eq!(ModelConfig { quantization: None, ..fp8 }, bf16);
    assert_eq!(bf16.attention.qk_head_dim(), 96);
    assert_eq!(bf16.attention.latent_width(), 160);
    assert_eq!(bf16.eos_token_ids, [1]);
    assert_eq!(bf16.moe.as_ref().unwrap().router, Router::SigmoidNoAuxTc { n_group: 4, topk_group: 2 });
    let moe_layers: Vec<usize> = (0..6).filter(|layer| bf16.is_moe_layer(*layer)).collect();
    assert_eq!(moe_layers, [1, 2, 3, 4, 5]);
}
