//! Routed and shared experts, with the routing given.

use engine_core::backend::{Backend, ExpertsWeights, Routing};
use engine_core::reference::Numerics;

use super::ffn::{TestFfn, stages};
use crate::harness::{Format, Output, Profile, Rig, Rng, Stop, Tolerance};
use crate::oracle::{Matrix, Oracle, experts};

const HIDDEN: usize = 96;
const WIDTH: usize = 40;
/// With which, and [`HIDDEN`], weights fill whole tiles of every device.
const TILED_WIDTH: usize = 64;

/// One format, number of shared experts and routing.
#[derive(Debug, Clone)]
pub struct ExpertsCase {
    format: Format,
    width: usize,
    num_shared: usize,
    num_experts: usize,
    top_k: usize,
    routing: Pattern,
    rows: usize,
}

/// Who goes where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    /// Each token draws its experts; with few tokens most experts have none.
    Random,
    /// All tokens go to the last `top_k` experts.
    SameForAll,
    /// Only even experts have tokens.
    EvenOnly,
}

struct Inputs {
    routed: Vec<TestFfn>,
    shared: Option<TestFfn>,
    x: Vec<f32>,
    ids: Vec<u32>,
    weights: Vec<f32>,
}

pub(super) fn cases() -> Vec<ExpertsCase> {
    let base = ExpertsCase {
        format: Format::Bf16,
        width: WIDTH,
        num_shared: 1,
        num_experts: 8,
        top_k: 2,
        routing: Pattern::Random,
        rows: 5,
    };
    let mut cases = Vec::new();
    for format in Format::ALL {
        for num_shared in [0, 1, 2] {
            cases.extend([1, 5, 33].map(|rows| ExpertsCase { format, num_shared, rows, ..base }));
        }
    }
    for routing in [Pattern::SameForAll, Pattern::EvenOnly] {
        cases.extend([Format::F32, Format::Fp8].map(|format| ExpertsCase { format, routing, rows: 19, ..base }));
    }
    // Rows of a prompt, for devices that have other kernels for FP8 then: few and many an expert, none for some.
    for (routing, top_k, rows) in [(Pattern::Random, 2, 70), (Pattern::SameForAll, 2, 150), (Pattern::EvenOnly, 3, 200)]
    {
        cases.push(ExpertsCase { format: Format::Fp8, routing, top_k, rows, ..base });
    }
    for (routing, rows) in [(Pattern::Random, 1), (Pattern::EvenOnly, 19), (Pattern::SameForAll, 33)] {
        cases.push(ExpertsCase { format: Format::Int8, width: TILED_WIDTH, routing, rows, ..base });
    }
    // More pairs than one block of a GPU sorts.
    cases.push(ExpertsCase { num_shared: 0, rows: 600, ..base });
    for (num_experts, top_k) in [(1, 1), (8, 8), (64, 6)] {
        cases.push(ExpertsCase { num_experts, top_k, rows: 9, ..base });
    }
    cases
}

impl ExpertsCase {
    pub(super) fn name(&self) -> String {
        let Self { format, width, num_shared, num_experts, top_k, routing, rows } = self;
        let width = if *width == WIDTH { String::new() } else { format!(", width {width}") };
        let routing = match routing {
            Pattern::Random => "random",
            Pattern::SameForAll => "same for all",
            Pattern::EvenOnly => "even only",
        };
        format!(
            "moe_experts/{}/shared {num_shared}/{top_k} of {num_experts}, {routing}{width}/rows {rows}",
            format.name()
        )
    }

    pub(super) fn tolerance(&self, profile: &Profile) -> Tolerance {
        Tolerance::of_stages(profile, &stages(self.format, HIDDEN, self.width), 2.0)
    }

    fn inputs(&self, numerics: Numerics) -> Inputs {
        let mut rng = Rng::from_name(&self.name());
        let routed =
            (0..self.num_experts).map(|_| TestFfn::random(&mut rng, self.format, HIDDEN, self.width)).collect();
        // Shared experts are one FFN of their common width.
        let shared =
            (self.num_shared > 0).then(|| TestFfn::random(&mut rng, self.format, HIDDEN, self.width * self.num_shared));
        let x = rng.activations(numerics, self.rows * HIDDEN);
        let ids = (0..self.rows).flat_map(|_| self.choose(&mut rng)).collect();
        let weights = (0..self.rows * self.top_k).map(|_| rng.uniform(0.1, 1.5)).collect();
        Inputs { routed, shared, x, ids, weights }
    }

    fn choose(&self, rng: &mut Rng) -> Vec<u32> {
        let mut ids = match self.routing {
            Pattern::Random => rng.permutation(self.num_experts),
            Pattern::SameForAll => (0..self.num_experts as u32).rev().collect(),
            Pattern::EvenOnly => rng.permutation(self.num_experts / 2).into_iter().map(|id| 2 * id).collect(),
        };
        ids.truncate(self.top_k);
        ids
    }

    pub(super) fn run_on<B: Backend>(&self, rig: &mut Rig<'_, B>) -> Result<Vec<Output>, Stop> {
        let inputs = self.inputs(rig.numerics());
        let weights = ExpertsWeights {
            routed: inputs.routed.iter().map(TestFfn::host).collect(),
            shared: inputs.shared.as_ref().map(TestFfn::host),
        };
        let experts = rig.backend.prepare_experts(weights)?;
        let x = rig.act_input("x", HIDDEN, &inputs.x)?;
        let (mut ids, mut weights) =
            (rig.input("ids", self.top_k, &inputs.ids)?, rig.input("weights", self.top_k, &inputs.weights)?);
        let mut out = rig.output::<B::Act>("out", self.rows, HIDDEN)?;
        let routing = Routing { ids: ids.tensor, weights: weights.tensor };
        rig.backend.moe_experts(&mut rig.stream, &experts, &x.tensor, &routing, &mut out.tensor)?;
        (ids.tensor, weights.tensor) = (routing.ids, routing.weights);
        rig.expect_unchanged(&x)?;
        rig.expect_unchanged(&ids)?;
        rig.expect_unchanged(&weights)?;
        Ok(vec![rig.read(&out)?])
    }

    pub(super) fn oracle(&self, oracle: Oracle) -> Vec<Output> {
        let inputs = self.inputs(oracle.numerics);
        let routed: Vec<_> = inputs.routed.iter().map(TestFfn::linears).collect();
        let ids = inputs.ids.chunks(self.top_k);
        let routing: Vec<Vec<(usize, f32)>> = ids
            .zip(inputs.weights.chunks(self.top_k))
            .map(|(ids, weights)| ids.iter().map(|id| *id as usize).zip(weights.iter().copied()).collect())
            .collect();
        let shared = inputs.shared.as_ref().map(TestFfn::linears);
        let out = experts(oracle, &routed, shared, &Matrix::from_f32(HIDDEN, &inputs.x), &routing);
        vec![Output::new("out", HIDDEN, out.to_f32())]
    }
}
