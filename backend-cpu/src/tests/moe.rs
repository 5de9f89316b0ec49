use engine_core::backend::{Backend, ExpertsWeights, GateSpec, GateWeights, HostBuffer, PrepareError, Routing, Tensor};
use engine_core::config::Router;
use engine_core::quant::WeightFormat;
use engine_core::reference::{Numerics, ReferenceBackend};

use super::world::{FORMATS, Random, assert_close, cpu, tensor};
use crate::{MlaForm, SimdLevel};

pub(super) fn run_experts<B: Backend<Act = f32, Buffer = HostBuffer>>(
    backend: &B,
    weights: &ExpertsWeights,
    x: &[f32],
    (ids, combine): (&[u32], &[f32]),
    (hidden, top_k): (usize, usize),
) -> Vec<f32> {
    let experts = backend.prepare_experts(weights.clone()).unwrap();
    let mut stream = backend.stream().unwrap();
    let routing = Routing {
        ids: Tensor::from_slice(backend, &mut stream, top_k, ids).unwrap(),
        weights: Tensor::from_slice(backend, &mut stream, top_k, combine).unwrap(),
    };
    let x = tensor(backend, hidden, x);
    let mut out = Tensor::alloc(backend, x.rows(), hidden).unwrap();
    backend.moe_experts(&mut stream, &experts, &x, &routing, &mut out).unwrap();
    out.as_slice().to_vec()
}

/// Distinct experts for every token.
pub(super) fn random_choice(
    random: &mut Random,
    num_tokens: usize,
    experts: usize,
    top_k: usize,
) -> (Vec<u32>, Vec<f32>) {
    let mut ids = Vec::new();
    for token in 0..num_tokens {
        while ids.len() < (token + 1) * top_k {
            let id = random.below(experts) as u32;
            if !ids[token * top_k..].contains(&id) {
                ids.push(id);
            }
        }
    }
    let weights = random.values(ids.len()).into_iter().map(f32::abs).collect();
    (ids, weights)
}

#[test]
fn experts_and_dense_ffn_agree_with_the_reference() {
    let reference = ReferenceBackend::new(Numerics::default());
    for format in FORMATS {
        for (hidden, width, shared_width) in [(96, 40, Some(80)), (160, 130, None)] {
            let mut random = Random::new(31);
            let weights = ExpertsWeights {
                routed: (0..7).map(|_| random.ffn(format, hidden, width)).collect(),
                shared: shared_width.map(|width| random.ffn(format, hidden, width)),
            };
            for num_tokens in [1, 2, 9, 70] {
                let x = random.values(num_tokens * hidden);
                let (ids, combine) = random_choice(&mut random, num_tokens, 7, 3);
                let choice = (&ids[..], &combine[..]);
                let expected = run_experts(&reference, &weights, &x, choice, (hidden, 3));
                for level in SimdLevel::available() {
                    let backend = cpu(level, MlaForm::Absorbed);
                    let found = run_experts(&backend, &weights, &x, choice, (hidden, 3));
                    assert_close(&found, &expected, 5e-6, &format!("{level} {format}, {num_tokens} tokens"));
                    assert_dense_agrees(&backend, &reference, &weights, &x, hidden);
                }
            }
        }
    }
}

fn assert_dense_agrees(
    backend: &crate::CpuBackend,
    reference: &ReferenceBackend,
    weights: &ExpertsWeights,
    x: &[f32],
    hidden: usize,
) {
    let (mut out, mut expected) = (tensor(backend, hidden, x), tensor(reference, hidden, x));
    let (a, b) = (tensor(backend, hidden, x), tensor(reference, hidden, x));
    let ffn = backend.prepare_ffn(weights.routed[0].clone()).unwrap();
    backend.ffn(&mut backend.stream().unwrap(), &ffn, &a, &mut out).unwrap();
    let ffn = reference.prepare_ffn(weights.routed[0].clone()).unwrap();
    reference.ffn(&mut reference.stream().unwrap(), &ffn, &b, &mut expected).unwrap();
    assert_close(out.as_slice(), expected.as_slice(), 5e-6, "dense ffn");
}

/// Routers of the family, with a bias that is negative for some experts.
fn routers() -> [(Router, bool); 4] {
    [
        (Router::SigmoidNoAuxTc { n_group: 4, topk_group: 2 }, true),
        (Router::SigmoidNoAuxTc { n_group: 1, topk_group: 1 }, false),
        (Router::SoftmaxGreedy, false),
        (Router::SoftmaxGroupLimited { n_group: 4, topk_group: 1 }, true),
    ]
}

fn gate_spec(router: Router, norm_topk_prob: bool) -> GateSpec {
    GateSpec {
        hidden_size: 100,
        n_routed_experts: 16,
        num_experts_per_tok: 3,
        router,
        norm_topk_prob,
        routed_scaling_factor: 2.5,
    }
}

fn run_gate<B: Backend<Act = f32, Buffer = HostBuffer>>(
    backend: &B,
    spec: &GateSpec,
    weights: &GateWeights,
    x: &[f32],
) -> (Vec<u32>, Vec<f32>) {
    let gate = backend.prepare_gate(spec, weights.clone()).unwrap();
    let x = tensor(backend, spec.hidden_size, x);
    let mut routing = Routing::alloc(backend, x.rows(), spec.num_experts_per_tok).unwrap();
    backend.moe_gate(&mut backend.stream().unwrap(), &gate, &x, &mut routing).unwrap();
    (routing.ids.as_slice().to_vec(), routing.weights.as_slice().to_vec())
}

#[test]
fn routers_agree_with_the_reference() {
    let reference = ReferenceBackend::new(Numerics::default());
    for (router, norm) in routers() {
        let mut random = Random::new(41);
        let bias = random.values(16).into_iter().map(|v| v - 0.5).collect();
        let weights = GateWeights {
            weight: random.weight(WeightFormat::Bf16, 16, 100),
            correction_bias: router.has_correction_bias().then_some(bias),
        };
        let x: Vec<f32> = random.values(50 * 100).into_iter().map(|v| 3.0 * v).collect();
        let spec = gate_spec(router, norm);
        let (ids, combine) = run_gate(&reference, &spec, &weights, &x);
        for level in SimdLevel::available() {
            let found = run_gate(&cpu(level, MlaForm::Absorbed), &spec, &weights, &x);
            assert_eq!(found.0, ids, "{level} {router:?}");
            assert_close(&found.1, &combine, 1e-5, &format!("{level} {router:?}"));
        }
    }
}

#[test]
fn rejected_groups_lose_to_negative_scores_and_ties_go_to_the_lowest_expert() {
    let spec = gate_spec(Router::SigmoidNoAuxTc { n_group: 4, topk_group: 1 }, false);
    // Zero logits: every sigmoid is 1/2, the bias alone decides. Group 2 has the best two, its others are negative.
    let mut bias = vec![-0.2; 16];
    bias[8..12].copy_from_slice(&[3.0, -9.0, 2.0, -9.0]);
    let weights = GateWeights {
        weight: engine_core::quant::HostWeight::F32(
            engine_core::quant::F32Weight::new(engine_core::quant::MatrixShape::new(16, 100), vec![0.0; 1600].into())
                .unwrap(),
        ),
        correction_bias: Some(bias),
    };
    let (ids, combine) = run_gate(&cpu(SimdLevel::detect(), MlaForm::Absorbed), &spec, &weights, &[1.0; 100]);
    assert_eq!(ids, [8, 10, 9]);
    assert_eq!(combine, [1.25; 3]);
}

#[test]
fn a_router_that_keeps_too_few_experts_is_refused() {
    let spec = gate_spec(Router::SigmoidNoAuxTc { n_group: 8, topk_group: 1 }, true);
    let weights = GateWeights { weight: Random::new(1).weight(WeightFormat::F32, 16, 100), correction_bias: None };
    let error = cpu(SimdLevel::detect(), MlaForm::Absorbed).prepare_gate(&spec, weights).unwrap_err();
    assert!(matches!(&error, PrepareError::Unsupported(e) if e.reason.contains("hold 2 experts")), "{error}");
}
