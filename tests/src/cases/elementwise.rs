//! Embedding, norms, sums and copies.

use engine_core::backend::Backend;
use engine_core::reference::{ActivationRounding, Numerics};

use crate::harness::{Format, Output, Profile, Rig, Rng, Stage, Stop, TestWeight, Tolerance};
use crate::oracle::{Matrix, Oracle, rms_norm};

const VOCAB: usize = 300;

/// One op on one shape.
#[derive(Debug, Clone)]
pub struct ElementwiseCase {
    op: Op,
    rows: usize,
    cols: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Embed(Format),
    /// Inputs are scaled so that epsilon weighs as much as they do.
    RmsNorm {
        eps: f32,
    },
    Add,
    AddRmsNorm {
        eps: f32,
    },
    /// Columns of the left part.
    Concat {
        left: usize,
    },
    GatherRows,
}

/// Inputs of a case; an op takes those it needs.
struct Inputs {
    x: Vec<f32>,
    other: Vec<f32>,
    norm: Vec<f32>,
    ids: Vec<u32>,
    table: TestWeight,
}

pub(super) fn cases() -> Vec<ElementwiseCase> {
    let ops = [
        Op::Embed(Format::Bf16),
        Op::Embed(Format::F32),
        Op::RmsNorm { eps: 1e-6 },
        Op::RmsNorm { eps: 1e-5 },
        Op::Add,
        Op::AddRmsNorm { eps: 1e-5 },
        Op::Concat { left: 24 },
        Op::GatherRows,
    ];
    let shapes = [(1, 64), (3, 160), (17, 48), (64, 257)];
    ops.into_iter().flat_map(|op| shapes.map(|(rows, cols)| ElementwiseCase { op, rows, cols })).collect()
}

impl ElementwiseCase {
    pub(super) fn name(&self) -> String {
        let op = match self.op {
            Op::Embed(format) => format!("embed/{}", format.name()),
            Op::RmsNorm { eps } => format!("rms_norm/eps {eps:e}"),
            Op::Add => "add".into(),
            Op::AddRmsNorm { eps } => format!("add_rms_norm/eps {eps:e}"),
            Op::Concat { left } => format!("concat/left {left}"),
            Op::GatherRows => "gather_rows".into(),
        };
        format!("{op}/{}x{}", self.rows, self.cols)
    }

    pub(super) fn tolerance(&self, profile: &Profile) -> Tolerance {
        match self.op {
            Op::Embed(_) | Op::Concat { .. } | Op::GatherRows => Tolerance::exact(),
            Op::Add => Tolerance::of_stages(profile, &[Stage::sum(2)], 1.0),
            Op::RmsNorm { .. } | Op::AddRmsNorm { .. } => {
                Tolerance::of_stages(profile, &[Stage::sum(self.cols), Stage::sum(1)], 1.0)
            }
        }
    }

    fn inputs(&self, numerics: Numerics) -> Inputs {
        let mut rng = Rng::from_name(&self.name());
        let n = self.rows * self.cols;
        let format = match self.op {
            Op::Embed(format) => format,
            Op::RmsNorm { .. } | Op::Add | Op::AddRmsNorm { .. } | Op::Concat { .. } | Op::GatherRows => Format::F32,
        };
        let table = TestWeight::random(&mut rng, format, VOCAB, self.cols);
        // 2^-9 squared is 4e-6, between the two epsilons; a power of two keeps bf16 values bf16.
        let scale = if matches!(self.op, Op::RmsNorm { .. } | Op::AddRmsNorm { .. }) { 2f32.powi(-9) } else { 1.0 };
        let mut scaled = |n| rng.activations(numerics, n).into_iter().map(|v| v * scale).collect::<Vec<f32>>();
        let (x, other) = (scaled(n), scaled(n));
        let norm = (0..self.cols).map(|_| 1.0 + 0.3 * rng.normal()).collect();
        let ids = (0..self.rows).map(|_| rng.below(if self.op == Op::GatherRows { self.rows } else { VOCAB }) as u32);
        Inputs { x, other, norm, ids: ids.collect(), table }
    }

    pub(super) fn run_on<B: Backend>(&self, rig: &mut Rig<'_, B>) -> Result<Vec<Output>, Stop> {
        let inputs = self.inputs(rig.numerics());
        let (backend, cols) = (rig.backend, self.cols);
        let mut out = rig.output::<B::Act>("out", self.rows, cols)?;
        match self.op {
            Op::Embed(_) => {
                let table = backend.prepare_embedding(inputs.table.host)?;
                let ids = rig.input("tokens", 1, &inputs.ids)?;
                backend.embed(&mut rig.stream, &table, &ids.tensor, &mut out.tensor)?;
                rig.expect_unchanged(&ids)?;
            }
            Op::RmsNorm { eps } => {
                let norm = backend.prepare_norm(&inputs.norm, eps)?;
                let x = rig.act_input("x", cols, &inputs.x)?;
                backend.rms_norm(&mut rig.stream, &norm, &x.tensor, &mut out.tensor)?;
                rig.expect_unchanged(&x)?;
            }
            Op::Add => {
                let x = rig.act_input("x", cols, &inputs.x)?;
                out = rig.act_input("out", cols, &inputs.other)?;
                backend.add(&mut rig.stream, &x.tensor, &mut out.tensor)?;
                rig.expect_unchanged(&x)?;
            }
            Op::AddRmsNorm { eps } => {
                let norm = backend.prepare_norm(&inputs.norm, eps)?;
                let delta = rig.act_input("delta", cols, &inputs.x)?;
                let mut residual = rig.act_input("residual", cols, &inputs.other)?;
                let (stream, residual_tensor) = (&mut rig.stream, &mut residual.tensor);
                backend.add_rms_norm(stream, &norm, &delta.tensor, residual_tensor, &mut out.tensor)?;
                rig.expect_unchanged(&delta)?;
                return Ok(vec![rig.read(&residual)?, rig.read(&out)?]);
            }
            Op::Concat { left } => {
                let a = rig.act_input("a", left, &self.columns(&inputs.x, 0..left))?;
                let b = rig.act_input("b", cols - left, &self.columns(&inputs.x, left..cols))?;
                backend.concat(&mut rig.stream, &a.tensor, &b.tensor, &mut out.tensor)?;
                rig.expect_unchanged(&a)?;
                rig.expect_unchanged(&b)?;
            }
            Op::GatherRows => {
                let x = rig.act_input("x", cols, &inputs.x)?;
                let ids = rig.input("rows", 1, &inputs.ids)?;
                backend.gather_rows(&mut rig.stream, &x.tensor, &ids.tensor, &mut out.tensor)?;
                rig.expect_unchanged(&x)?;
                rig.expect_unchanged(&ids)?;
            }
        }
        Ok(vec![rig.read(&out)?])
    }

    fn columns(&self, x: &[f32], range: std::ops::Range<usize>) -> Vec<f32> {
        x.chunks(self.cols).flat_map(|row| &row[range.clone()]).copied().collect()
    }

    pub(super) fn oracle(&self, oracle: Oracle) -> Vec<Output> {
        let inputs = self.inputs(oracle.numerics);
        let x = Matrix::from_f32(self.cols, &inputs.x);
        let sum = || {
            let mut sum = Matrix::from_f32(self.cols, &inputs.other);
            sum.data.iter_mut().zip(&x.data).for_each(|(s, x)| *s += x);
            oracle.round(&mut sum.data);
            // The sum is stored before the norm reads it.
            if oracle.numerics.activations == ActivationRounding::F32 {
                sum.data.iter_mut().for_each(|s| *s = f64::from(*s as f32));
            }
            sum
        };
        let rows = |row: &dyn Fn(usize) -> Vec<f64>| Matrix {
            cols: self.cols,
            data: inputs.ids.iter().flat_map(|id| row(*id as usize)).collect(),
        };
        let out = match self.op {
            Op::Embed(_) => {
                let mut out = rows(&|id| inputs.table.linear.row(id).to_vec());
                oracle.round(&mut out.data);
                out
            }
            Op::RmsNorm { eps } => rms_norm(oracle, &x, &inputs.norm, eps),
            Op::Add => sum(),
            Op::AddRmsNorm { eps } => {
                let normed = rms_norm(oracle, &sum(), &inputs.norm, eps);
                let residual = Output::new("residual", self.cols, sum().to_f32());
                return vec![residual, Output::new("out", self.cols, normed.to_f32())];
            }
            Op::Concat { .. } => x,
            Op::GatherRows => rows(&|id| x.row(id).to_vec()),
        };
        vec![Output::new("out", self.cols, out.to_f32())]
    }
}
