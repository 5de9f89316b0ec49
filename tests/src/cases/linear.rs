//! Linears and the head.

use engine_core::backend::Backend;
use engine_core::reference::Numerics;

use crate::harness::{Format, Output, Profile, Rig, Rng, Stage, Stop, TestWeight, Tolerance};
use crate::oracle::{Matrix, Oracle};

/// One format, shape and number of tokens.
#[derive(Debug, Clone)]
pub struct LinearCase {
    op: Op,
    format: Format,
    out: usize,
    inp: usize,
    rows: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Linear,
    Logits,
}

/// `[out, in]`: tiny; no whole number of 128-blocks; the half-filled last block row of `kv_a`; fewer inputs than a
/// block; the widths of real experts and of a dense FFN whose last input group is ragged.
const SHAPES: [(usize, usize); 6] = [(8, 16), (160, 256), (576, 136), (64, 96), (40, 1408), (24, 10944)];
const ROWS: [usize; 6] = [1, 2, 3, 8, 17, 64];
/// Rows of a prompt, for devices that have other kernels for FP8 then: no whole number of tiles of 64 or 128, nor
/// of fours.
const PROMPT_ROWS: [usize; 3] = [100, 131, 300];

pub(super) fn cases() -> Vec<LinearCase> {
    let mut cases = Vec::new();
    for format in Format::ALL {
        for (out, inp) in SHAPES {
            cases.extend(ROWS.map(|rows| LinearCase { op: Op::Linear, format, out, inp, rows }));
        }
    }
    for (out, inp) in [SHAPES[1], SHAPES[2]] {
        cases.extend(PROMPT_ROWS.map(|rows| LinearCase { op: Op::Linear, format: Format::Fp8, out, inp, rows }));
    }
    for format in [Format::F32, Format::Bf16] {
        cases.extend([1, 5].map(|rows| LinearCase { op: Op::Logits, format, out: 1030, inp: 160, rows }));
    }
    cases
}

impl LinearCase {
    pub(super) fn name(&self) -> String {
        let op = match self.op {
            Op::Linear => "linear",
            Op::Logits => "logits",
        };
        format!("{op}/{}/{}x{}/rows {}", self.format.name(), self.out, self.inp, self.rows)
    }

    pub(super) fn tolerance(&self, profile: &Profile) -> Tolerance {
        Tolerance::of_stages(profile, &[Stage::linear(self.format, self.inp)], 1.0)
    }

    fn inputs(&self, numerics: Numerics) -> (TestWeight, Vec<f32>) {
        let mut rng = Rng::from_name(&self.name());
        let weight = TestWeight::random(&mut rng, self.format, self.out, self.inp);
        let mut x = rng.activations(numerics, self.rows * self.inp);
        // An all-zero group of 128 inputs in one token: its scale must not divide by zero.
        let last = (self.rows - 1) * self.inp;
        if self.inp > 128 && self.rows > 1 {
            x[last..last + 128].fill(0.0);
        }
        (weight, x)
    }

    pub(super) fn run_on<B: Backend>(&self, rig: &mut Rig<'_, B>) -> Result<Vec<Output>, Stop> {
        let (weight, x) = self.inputs(rig.numerics());
        let weight = rig.backend.prepare_linear(weight.host)?;
        let x = rig.act_input("x", self.inp, &x)?;
        let output = match self.op {
            Op::Linear => {
                let mut out = rig.output::<B::Act>("out", self.rows, self.out)?;
                rig.backend.linear(&mut rig.stream, &weight, &x.tensor, &mut out.tensor)?;
                rig.read(&out)?
            }
            Op::Logits => {
                let mut out = rig.output::<f32>("out", self.rows, self.out)?;
                rig.backend.logits(&mut rig.stream, &weight, &x.tensor, &mut out.tensor)?;
                rig.read(&out)?
            }
        };
        rig.expect_unchanged(&x)?;
        Ok(vec![output])
    }

    pub(super) fn oracle(&self, oracle: Oracle) -> Vec<Output> {
        let (weight, x) = self.inputs(oracle.numerics);
        let x = Matrix::from_f32(self.inp, &x);
        let out = match self.op {
            Op::Linear => weight.linear.apply(oracle, &x),
            Op::Logits => weight.linear.apply_exact(&x),
        };
        vec![Output::new("out", self.out, out.to_f32())]
    }
}
