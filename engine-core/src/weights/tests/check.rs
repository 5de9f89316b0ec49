//! Whole checkpoints against a configuration.

use super::*;

/// A small GLM-like model with one MTP module.
fn config() -> ModelConfig {
    let text = r#"{"model_type": "glm4_moe_lite", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6,
        "num_hidden_layers": 2, "num_nextn_predict_layers": 1, "num_attention_heads": 2, "q_lora_rank": null,
        "kv_lora_rank": 4, "qk_nope_head_dim": 2, "qk_rope_head_dim": 2, "v_head_dim": 3, "n_routed_experts": 2,
        "n_shared_experts": 1, "num_experts_per_tok": 1, "moe_intermediate_size": 2,
        "max_position_embeddings": 16}"#;
    ModelConfig::from_json(text).unwrap()
}

fn dims(tensor: &TensorSpec) -> Vec<usize> {
    match tensor.kind {
        TensorKind::Linear(_, shape) | TensorKind::Plain(shape) => vec![shape.out_features, shape.in_features],
        TensorKind::Vector(len) => vec![len],
    }
}

/// Writes the tensors for which `keep` holds, as bf16 zeros, and `more`.
fn write(keep: impl Fn(&str) -> bool, more: &[Tensor<'_>]) -> TempDir {
    let specs: Vec<TensorSpec> = checkpoint_tensors(&config(), true).into_iter().filter(|t| keep(&t.name)).collect();
    let mut tensors: Vec<Tensor<'_>> = Vec::new();
    for spec in &specs {
        tensors.push((&spec.name, "BF16", dims(spec), vec![0; spec.num_elements() * 2]));
    }
    tensors.extend_from_slice(more);
    single(&shard(&tensors))
}

fn report(dir: &Path) -> Result<CheckpointReport, CheckpointError> {
    Checkpoint::open(dir).unwrap().check(&config())
}

#[test]
fn extra_tensors_are_reported_and_rotary_buffers_are_not() {
    let more = [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", vec![1], vec![0; 4]),
        ("visual.patch.weight", "F32", vec![1], vec![0; 4]),
        ("model.layers.7.mlp.gate.weight", "F32", vec![1], vec![0; 4]),
        ("lm_head.weight_scale_inv", "F32", vec![1, 1], vec![0; 4]),
    ];
    let report = report(write(|_| true, &more).path()).unwrap();
    assert!(report.has_mtp);
    let unknown = ["lm_head.weight_scale_inv", "model.layers.7.mlp.gate.weight", "visual.patch.weight"];
    assert_eq!(report.unknown, unknown);
}

#[test]
fn mtp_modules_may_be_absent_but_not_in_part() {
    let without = write(|name| !name.starts_with("model.layers.2."), &[]);
    assert_eq!(report(without.path()).unwrap(), CheckpointReport { has_mtp: false, unknown: vec![] });
    let part = write(|name| name != "model.layers.2.eh_proj.weight", &[]);
    says(&report(part.path()).unwrap_err(), &["no tensor model.layers.2.eh_proj.weight"]);
}

#[test]
fn every_tensor_is_asked_for() {
    for spec in checkpoint_tensors(&config(), false) {
        let dir = write(|name| name != spec.name, &[]);
        says(&report(dir.path()).unwrap_err(), &[&format!("no tensor {},", spec.name)]);
        let mut wrong = dims(&spec);
        wrong[0] += 1;
        let zeros = vec![0; wrong.iter().product::<usize>() * 2];
        let dir = write(|name| name != spec.name, &[(&spec.name, "BF16", wrong, zeros)]);
        says(&report(dir.path()).unwrap_err(), &[&format!("{} has shape", spec.name)]);
        let zeros = vec![0; spec.num_elements() * 2];
        let dir = write(|name| name != spec.name, &[(&spec.name, "F16", dims(&spec), zeros)]);
        says(&report(dir.path()).unwrap_err(), &[&format!("{} is F16", spec.name)]);
    }
}

#[test]
fn a_missing_scale_is_found_without_reading_weights() {
    let name = "model.layers.1.mlp.experts.1.up_proj.weight";
    let fp8 = (name, "F8_E4M3", vec![2, 4], vec![0; 8]);
    let error = report(write(|n| n != name, &[fp8]).path()).unwrap_err();
    says(&error, &[name, "needs model.layers.1.mlp.experts.1.up_proj.weight_scale_inv"]);
}
