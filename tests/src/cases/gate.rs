//! Routers. Inputs are drawn again until no decision is near a tie.

use engine_core::backend::{Backend, GateSpec, GateWeights, Routing};
use engine_core::config::Router;
use engine_core::reference::Numerics;

use crate::harness::{Format, Output, Rig, Rng, Stop, TestWeight, Tolerance};
use crate::oracle::{Choice, GateOracle, Oracle};

/// Least distance of a decision from a tie: thousands of f32 roundings of a score.
const MARGIN: f64 = 1e-3;

/// Where biases alone decide, a tie among them is a tie for every token: the case needs another name.
const MAX_DRAWS: usize = 10_000;

/// One router, its bias and number of tokens.
#[derive(Debug, Clone)]
pub struct GateCase {
    router: Router,
    bias: Bias,
    format: Format,
    num_experts: usize,
    top_k: usize,
    norm_topk_prob: bool,
    routed_scaling_factor: f32,
    hidden: usize,
    rows: usize,
}

/// What `e_score_correction_bias` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bias {
    /// Router without bias.
    None,
    /// Around zero, both signs.
    Balanced,
    /// Far below zero: every biased score is negative, so a mask of 0 would let rejected groups win.
    Negative,
    /// Around 12 with scores around 1e-8: a score recovered as (score + bias) − bias would be 0.
    Large,
}

pub(super) fn cases() -> Vec<GateCase> {
    let base = GateCase {
        router: Router::SigmoidNoAuxTc { n_group: 8, topk_group: 4 },
        bias: Bias::Balanced,
        format: Format::Bf16,
        num_experts: 64,
        top_k: 8,
        norm_topk_prob: true,
        routed_scaling_factor: 2.5,
        hidden: 96,
        rows: 33,
    };
    let no_groups = GateCase {
        router: Router::SigmoidNoAuxTc { n_group: 1, topk_group: 1 },
        top_k: 6,
        routed_scaling_factor: 2.446,
        ..base
    };
    let softmax = GateCase { bias: Bias::None, norm_topk_prob: false, routed_scaling_factor: 1.0, top_k: 6, ..base };
    let greedy = GateCase { router: Router::SoftmaxGreedy, ..softmax };
    let group_limited = GateCase {
        router: Router::SoftmaxGroupLimited { n_group: 8, topk_group: 3 },
        routed_scaling_factor: 16.0,
        ..softmax
    };
    vec![
        base.clone(),
        GateCase { rows: 1, ..base.clone() },
        GateCase { format: Format::F32, ..base.clone() },
        GateCase { bias: Bias::Negative, ..base.clone() },
        GateCase { bias: Bias::Large, ..base.clone() },
        GateCase { num_experts: 16, top_k: 2, hidden: 33, ..base.clone() },
        GateCase { norm_topk_prob: false, ..base.clone() },
        // Every allowed expert is taken.
        GateCase { router: Router::SigmoidNoAuxTc { n_group: 8, topk_group: 1 }, ..base },
        no_groups.clone(),
        GateCase { bias: Bias::Negative, ..no_groups.clone() },
        GateCase { num_experts: 384, top_k: 8, rows: 5, ..no_groups.clone() },
        GateCase { num_experts: 1, top_k: 1, rows: 3, ..no_groups },
        greedy.clone(),
        GateCase { norm_topk_prob: true, rows: 2, ..greedy },
        group_limited.clone(),
        GateCase { num_experts: 160, rows: 7, ..group_limited },
    ]
}

impl GateCase {
    pub(super) fn name(&self) -> String {
        let router = match self.router {
            Router::SigmoidNoAuxTc { n_group, topk_group } => format!("sigmoid, {topk_group} of {n_group} groups"),
            Router::SoftmaxGreedy => "softmax greedy".into(),
            Router::SoftmaxGroupLimited { n_group, topk_group } => {
                format!("softmax, {topk_group} of {n_group} groups")
            }
        };
        let bias = match self.bias {
            Bias::None => "no bias",
            Bias::Balanced => "bias",
            Bias::Negative => "negative bias",
            Bias::Large => "bias 12",
        };
        let Self { format, num_experts, top_k, norm_topk_prob, rows, .. } = self;
        let norm = if *norm_topk_prob { "normalised" } else { "as they are" };
        format!("moe_gate/{}/{router}/{top_k} of {num_experts}, {bias}, {norm}/rows {rows}", format.name())
    }

    pub(super) fn tolerance(&self) -> Tolerance {
        // Logits up to 20, summed in f32, are off by 1e-5 at most; so, relatively, are sigmoid and softmax of them.
        Tolerance { nmse: 1e-10, max_error: 1e-4, reason: "f32 router, relative error of a score 1e-5".into() }
    }

    fn spec(&self) -> GateSpec {
        GateSpec {
            hidden_size: self.hidden,
            n_routed_experts: self.num_experts,
            num_experts_per_tok: self.top_k,
            router: self.router,
            norm_topk_prob: self.norm_topk_prob,
            routed_scaling_factor: self.routed_scaling_factor,
        }
    }

    /// The router for a backend and for the oracle, and `x [rows, hidden]`.
    fn inputs(&self, numerics: Numerics) -> (TestWeight, GateOracle, Vec<f32>) {
        let mut rng = Rng::from_name(&self.name());
        let mut weight = TestWeight::random(&mut rng, self.format, self.num_experts, self.hidden);
        if self.bias == Bias::Large {
            weight = self.weight_of_tiny_scores(&mut rng);
        }
        let bias = match self.bias {
            Bias::None => vec![0.0; self.num_experts],
            Bias::Balanced => rng.normals(self.num_experts, 0.2),
            Bias::Negative => rng.normals(self.num_experts, 0.2).into_iter().map(|b| b - 3.0).collect(),
            Bias::Large => rng.normals(self.num_experts, 0.3).into_iter().map(|b| b + 12.0).collect(),
        };
        let gate = GateOracle { spec: self.spec(), weight: weight.linear.clone(), bias };
        let mut x = Vec::with_capacity(self.rows * self.hidden);
        for _ in 0..MAX_DRAWS {
            let mut token = rng.activations(numerics, self.hidden);
            token[0] = 1.0;
            if gate.route(&token).margin > self.margin() {
                x.extend(token);
            }
            if x.len() == self.rows * self.hidden {
                return (weight, gate, x);
            }
        }
        unreachable!("{}: {MAX_DRAWS} tokens, and too few without a near tie", self.name())
    }

    /// Softmax scores are smaller, and so are their distances.
    fn margin(&self) -> f64 {
        match self.router {
            Router::SigmoidNoAuxTc { .. } => MARGIN,
            Router::SoftmaxGreedy | Router::SoftmaxGroupLimited { .. } => MARGIN / self.num_experts as f64,
        }
    }

    /// Input 0 is always 1; its weight takes every logit to about −18, where sigmoid is 1e-8.
    fn weight_of_tiny_scores(&self, rng: &mut Rng) -> TestWeight {
        let mut values = rng.normals(self.num_experts * self.hidden, (self.hidden as f32).sqrt().recip());
        values.chunks_mut(self.hidden).for_each(|row| row[0] = -18.0);
        TestWeight::from_f32(self.num_experts, self.hidden, values)
    }

    pub(super) fn run_on<B: Backend>(&self, rig: &mut Rig<'_, B>) -> Result<Vec<Output>, Stop> {
        let (weight, gate, x) = self.inputs(rig.numerics());
        let correction_bias = self.router.has_correction_bias().then_some(gate.bias);
        let gate = rig.backend.prepare_gate(&self.spec(), GateWeights { weight: weight.host, correction_bias })?;
        let x = rig.act_input("x", self.hidden, &x)?;
        let (mut ids, mut weights) =
            (rig.output("ids", self.rows, self.top_k)?, rig.output("weights", self.rows, self.top_k)?);
        let mut routing = Routing { ids: ids.tensor, weights: weights.tensor };
        rig.backend.moe_gate(&mut rig.stream, &gate, &x.tensor, &mut routing)?;
        (ids.tensor, weights.tensor) = (routing.ids, routing.weights);
        rig.expect_unchanged(&x)?;
        let (ids, weights) = (rig.values::<u32>(&ids)?, rig.values::<f32>(&weights)?);
        Ok(vec![self.dense(&ids, &weights)?])
    }

    /// Combine weights by expert; the order of ids within a token is free.
    fn dense(&self, ids: &[u32], weights: &[f32]) -> Result<Output, Stop> {
        let mut dense = vec![0.0; self.rows * self.num_experts];
        for (i, (id, weight)) in ids.iter().zip(weights).enumerate() {
            let (token, expert) = (i / self.top_k, *id as usize);
            if expert >= self.num_experts {
                return Err(Stop::Failed(format!("token {token}: expert {id} of {}", self.num_experts)));
            }
            if ids[token * self.top_k..i].contains(id) {
                return Err(Stop::Failed(format!("token {token}: expert {id} twice")));
            }
            dense[token * self.num_experts + expert] = *weight;
        }
        Ok(Output::new("routing", self.num_experts, dense))
    }

    pub(super) fn oracle(&self, oracle: Oracle) -> Vec<Output> {
        let (_, gate, x) = self.inputs(oracle.numerics);
        let mut dense = vec![0.0; self.rows * self.num_experts];
        for (token, row) in x.chunks(self.hidden).zip(dense.chunks_mut(self.num_experts)) {
            let Choice { ids, weights, .. } = gate.route(token);
            ids.into_iter().zip(weights).for_each(|(id, weight)| row[id] = weight as f32);
        }
        vec![Output::new("routing", self.num_experts, dense)]
    }
}
