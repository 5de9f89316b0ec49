//! The gated FFN.

use engine_core::backend::{Backend, FfnWeights};
use engine_core::reference::Numerics;

use crate::harness::{Format, Output, Profile, Rig, Rng, Stage, Stop, TestWeight, Tolerance};
use crate::oracle::{Linear, Matrix, Oracle, ffn};

/// Weights of one gated FFN.
#[derive(Debug, Clone)]
pub(super) struct TestFfn {
    gate: TestWeight,
    up: TestWeight,
    down: TestWeight,
}

impl TestFfn {
    pub(super) fn random(rng: &mut Rng, format: Format, hidden: usize, width: usize) -> Self {
        Self {
            gate: TestWeight::random(rng, format, width, hidden),
            up: TestWeight::random(rng, format, width, hidden),
            down: TestWeight::random(rng, format, hidden, width),
        }
    }

    pub(super) fn host(&self) -> FfnWeights {
        FfnWeights { gate: self.gate.host.clone(), up: self.up.host.clone(), down: self.down.host.clone() }
    }

    pub(super) fn linears(&self) -> [&Linear; 3] {
        [&self.gate.linear, &self.up.linear, &self.down.linear]
    }
}

/// Stages of an FFN: the gate and up projections, their product, the down projection.
pub(super) fn stages(format: Format, hidden: usize, width: usize) -> [Stage; 4] {
    let inner = Stage::linear(format, hidden);
    [inner, inner, Stage::sum(1), Stage::linear(format, width)]
}

/// One format, shape and number of tokens.
#[derive(Debug, Clone)]
pub struct FfnCase {
    format: Format,
    hidden: usize,
    width: usize,
    rows: usize,
}

pub(super) fn cases() -> Vec<FfnCase> {
    let mut cases = Vec::new();
    for format in Format::ALL {
        for (hidden, width) in [(16, 8), (160, 320), (64, 1408), (136, 96)] {
            cases.extend([1, 3, 33].map(|rows| FfnCase { format, hidden, width, rows }));
        }
    }
    // Rows of a prompt, for devices that have other kernels for FP8 then.
    for (hidden, width) in [(160, 320), (136, 104)] {
        cases.extend([70, 130].map(|rows| FfnCase { format: Format::Fp8, hidden, width, rows }));
    }
    cases
}

impl FfnCase {
    pub(super) fn name(&self) -> String {
        format!("ffn/{}/hidden {} width {}/rows {}", self.format.name(), self.hidden, self.width, self.rows)
    }

    pub(super) fn tolerance(&self, profile: &Profile) -> Tolerance {
        Tolerance::of_stages(profile, &stages(self.format, self.hidden, self.width), 1.0)
    }

    fn inputs(&self, numerics: Numerics) -> (TestFfn, Vec<f32>) {
        let mut rng = Rng::from_name(&self.name());
        let weights = TestFfn::random(&mut rng, self.format, self.hidden, self.width);
        let x = rng.activations(numerics, self.rows * self.hidden);
        (weights, x)
    }

    pub(super) fn run_on<B: Backend>(&self, rig: &mut Rig<'_, B>) -> Result<Vec<Output>, Stop> {
        let (weights, x) = self.inputs(rig.numerics());
        let weights = rig.backend.prepare_ffn(weights.host())?;
        let x = rig.act_input("x", self.hidden, &x)?;
        let mut out = rig.output::<B::Act>("out", self.rows, self.hidden)?;
        rig.backend.ffn(&mut rig.stream, &weights, &x.tensor, &mut out.tensor)?;
        rig.expect_unchanged(&x)?;
        Ok(vec![rig.read(&out)?])
    }

    pub(super) fn oracle(&self, oracle: Oracle) -> Vec<Output> {
        let (weights, x) = self.inputs(oracle.numerics);
        let out = ffn(oracle, weights.linears(), &Matrix::from_f32(self.hidden, &x));
        vec![Output::new("out", self.hidden, out.to_f32())]
    }
}
