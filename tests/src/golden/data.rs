//! Reading `tests/goldens/`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use engine_core::quant::QuantisedInputs;
use safetensors::SafeTensors;
use serde::Deserialize;

/// How a golden was computed; the names are those of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoldenMode {
    /// bf16 weights, f32 arithmetic.
    Bf16WeightsF32,
    /// bf16 weights, bf16 arithmetic.
    Bf16WeightsBf16,
    /// fp8 weights dequantised, f32 arithmetic.
    Fp8WeightsF32,
    /// fp8 weights, every fp8 linear's input quantised.
    Fp8WeightsW8A8,
    /// The same, except `kv_b_proj`, whose input stays float.
    Fp8WeightsW8A8Absorbed,
}

impl GoldenMode {
    /// Name in the files.
    pub fn name(self) -> &'static str {
        match self {
            GoldenMode::Bf16WeightsF32 => "bf16w_f32",
            GoldenMode::Bf16WeightsBf16 => "bf16w_bf16",
            GoldenMode::Fp8WeightsF32 => "fp8w_f32",
            GoldenMode::Fp8WeightsW8A8 => "fp8w_w8a8",
            GoldenMode::Fp8WeightsW8A8Absorbed => "fp8w_w8a8_absorb",
        }
    }

    /// All modes of the same checkpoint.
    pub fn same_weights(self) -> &'static [GoldenMode] {
        match self {
            GoldenMode::Bf16WeightsF32 | GoldenMode::Bf16WeightsBf16 => {
                &[GoldenMode::Bf16WeightsF32, GoldenMode::Bf16WeightsBf16]
            }
            GoldenMode::Fp8WeightsF32 | GoldenMode::Fp8WeightsW8A8 | GoldenMode::Fp8WeightsW8A8Absorbed => {
                &[GoldenMode::Fp8WeightsF32, GoldenMode::Fp8WeightsW8A8, GoldenMode::Fp8WeightsW8A8Absorbed]
            }
        }
    }

    /// What a GPU that quantises these inputs is held against.
    pub fn on_gpus(is_fp8: bool, quantised_inputs: QuantisedInputs) -> Self {
        match (is_fp8, quantised_inputs.fp8) {
            (false, _) => GoldenMode::Bf16WeightsBf16,
            (true, true) => GoldenMode::Fp8WeightsW8A8Absorbed,
            (true, false) => GoldenMode::Fp8WeightsF32,
        }
    }

    /// The checkpoint it belongs to.
    pub fn model_dir(self) -> PathBuf {
        match self {
            GoldenMode::Bf16WeightsF32 | GoldenMode::Bf16WeightsBf16 => model_dir("bf16"),
            GoldenMode::Fp8WeightsF32 | GoldenMode::Fp8WeightsW8A8 | GoldenMode::Fp8WeightsW8A8Absorbed => {
                model_dir("fp8")
            }
        }
    }
}

/// `models/tiny-deepseek-v3-{format}`.
pub fn model_dir(format: &str) -> PathBuf {
    root().join("models").join(format!("tiny-deepseek-v3-{format}"))
}

/// The repository: where this process runs, if that is one, since a program may have been built elsewhere.
fn root() -> PathBuf {
    let here = PathBuf::from(".");
    let is_repository = here.join("tests/goldens").is_dir() && here.join("models").is_dir();
    if is_repository { here } else { PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")) }
}

/// `goldens.json` and `goldens.safetensors`.
#[derive(Debug)]
pub struct Goldens {
    /// The json file.
    pub json: GoldenFile,
    tensors: Vec<u8>,
}

/// The parts of `goldens.json` that tests read.
#[derive(Debug, Deserialize)]
pub struct GoldenFile {
    /// Prompts with their ids.
    pub prompts: Vec<GoldenPrompt>,
    /// Mode → prompt name → result.
    pub results: BTreeMap<String, BTreeMap<String, GoldenResult>>,
    /// The traced text.
    pub trace: GoldenTrace,
    /// Held-out files.
    pub heldout: GoldenHeldout,
}

/// A prompt.
#[derive(Debug, Deserialize)]
pub struct GoldenPrompt {
    /// Name.
    pub name: String,
    /// Token ids, begin-of-sentence included.
    pub ids: Vec<u32>,
}

/// What the reference computed for a prompt.
#[derive(Debug, Deserialize)]
pub struct GoldenResult {
    /// 64 greedy tokens.
    pub greedy: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Top-1 minus top-2 log-probability at each greedy step.
    pub gaps: Vec<f32>,
    /// Positions whose logits are stored.
    pub logit_positions: Vec<usize>,
    /// Argmax at every prompt position.
    pub prompt_argmax: Vec<u32>,
    /// MTP.
    pub mtp: GoldenMtp,
}

/// MTP drafts for a prompt.
#[derive(Debug, Deserialize)]
pub struct GoldenMtp {
    /// Slot whose logits are stored.
    pub logits_slot: usize,
    /// Draft at every prompt slot but the last.
    pub argmax_prompt_slots: Vec<u32>,
}

/// The traced text.
#[derive(Debug, Deserialize)]
pub struct GoldenTrace {
    /// Token ids.
    pub ids: Vec<u32>,
}

/// Held-out texts.
#[derive(Debug, Deserialize)]
pub struct GoldenHeldout {
    /// File → ids.
    pub files: BTreeMap<String, GoldenPromptIds>,
    /// Mode → file → window → figures.
    pub modes: BTreeMap<String, BTreeMap<String, BTreeMap<String, GoldenWindow>>>,
}

/// Ids of a held-out file.
#[derive(Debug, Deserialize)]
pub struct GoldenPromptIds {
    /// Token ids.
    pub ids: Vec<u32>,
}

/// Figures of a held-out file in windows of one length.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct GoldenWindow {
    /// Σ negative log-likelihood.
    pub nll_sum: f64,
    /// Predictions.
    pub tokens: usize,
    /// e^mean.
    pub perplexity: f64,
    /// Share of drafts that equal the main model's argmax.
    pub draft_acceptance: f64,
}

impl Goldens {
    /// Reads both files.
    ///
    /// # Panics
    /// If they cannot be read: the repository is incomplete.
    pub fn load() -> Self {
        let dir = root().join("tests/goldens");
        let read = |name: &str| std::fs::read(dir.join(name)).unwrap_or_else(|e| panic!("tests/goldens/{name}: {e}"));
        let json = serde_json::from_slice(&read("goldens.json")).unwrap_or_else(|e| panic!("goldens.json: {e}"));
        Self { json, tensors: read("goldens.safetensors") }
    }

    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap_or_else(|e| panic!("goldens.safetensors: {e}"));
        let view = tensors.tensor(name).unwrap_or_else(|e| panic!("goldens.safetensors: {name}: {e}"));
        (view.shape().to_vec(), view.data().to_vec())
    }

    /// An f32 tensor and the length of its rows.
    pub fn f32(&self, name: &str) -> (usize, Vec<f32>) {
        let (shape, bytes) = self.tensor(name);
        (shape.last().copied().unwrap_or(1), bytemuck::allocation::pod_collect_to_vec(&bytes))
    }

    /// An i32 tensor and the length of its rows.
    pub fn i32(&self, name: &str) -> (usize, Vec<i32>) {
        let (shape, bytes) = self.tensor(name);
        (shape.last().copied().unwrap_or(1), bytemuck::allocation::pod_collect_to_vec(&bytes))
    }

    /// The result for a prompt.
    pub fn result(&self, mode: GoldenMode, prompt: &str) -> &GoldenResult {
        &self.json.results[mode.name()][prompt]
    }
}
