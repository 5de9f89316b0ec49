//! Inside the model: hidden states after every layer, router choices, the MTP module's parts.

use std::cell::RefCell;
use std::collections::HashMap;

use engine_core::backend::{Backend, Element, SequenceStep};
use engine_core::model::{Observer, Point, Value};
use engine_core::runner::{Runner, StepOutput, WantedRows};

use super::{Findings, GoldenMode, Goldens, relative_error};

#[derive(Debug, Default)]
struct Seen {
    hidden: HashMap<Point, Vec<f32>>,
    routing: HashMap<usize, (Vec<u32>, Vec<f32>)>,
}

/// The traced text of a mode. `tolerance` bounds the relative error of every hidden state.
///
/// # Panics
/// When the device fails.
pub fn check_trace<B: Backend>(
    goldens: &Goldens,
    mode: GoldenMode,
    runner: &mut Runner<B>,
    tolerance: f32,
) -> Findings {
    let ids = &goldens.json.trace.ids;
    let mut seen = Seen::default();
    let mut watch = |backend: &B, stream: &mut B::Stream, point: Point, value: Value<'_, B>| {
        match value {
            Value::Hidden(x) => {
                let mut values = Vec::new();
                x.read(backend, stream, &mut values)?;
                seen.hidden.insert(point, values.into_iter().map(Element::to_f32).collect());
            }
            Value::Routing(routing) => {
                let Point::Routing(layer) = point else { return Ok(()) };
                let (mut experts, mut weights) = (Vec::new(), Vec::new());
                routing.ids.read(backend, stream, &mut experts)?;
                routing.weights.read(backend, stream, &mut weights)?;
                seen.routing.insert(layer, (experts, weights));
            }
        }
        Ok(())
    };
    let callback = RefCell::new(&mut watch as &mut _);
    let observer = Observer::new(&callback);
    let step = SequenceStep { tokens: ids, context_len: 0, block_table: &[0] };
    let (nothing, mut output) = (WantedRows::default(), StepOutput::default());
    runner.step_observed(&[step], nothing, &mut output, observer).unwrap_or_else(|e| panic!("trace: {e}"));
    let mut next = ids[1..].to_vec();
    next.push(0);
    runner.draft_observed(&next, nothing, &mut output, observer).unwrap_or_else(|e| panic!("trace: MTP: {e}"));
    compare(goldens, mode, runner, &seen, tolerance)
}

fn compare<B: Backend>(
    goldens: &Goldens,
    mode: GoldenMode,
    runner: &Runner<B>,
    seen: &Seen,
    tolerance: f32,
) -> Findings {
    let layers = runner.model().config().num_hidden_layers;
    let mut points = vec![
        (Point::Embedding, "embed".to_owned()),
        (Point::FinalNorm, "final_norm".into()),
        (Point::MtpInput, "mtp.eh_proj".into()),
        (Point::LayerOutput(layers), "mtp.block_out".into()),
        (Point::MtpNorm, "mtp.shared_head_norm".into()),
    ];
    for layer in 0..layers {
        points.push((Point::LayerOutput(layer), format!("layer{layer}.out")));
        if layer < 2 {
            points.push((Point::InputNorm(layer), format!("layer{layer}.input_layernorm")));
            points.push((Point::AttentionOutput(layer), format!("layer{layer}.attn_out")));
            points.push((Point::FfnOutput(layer), format!("layer{layer}.mlp_out")));
        }
    }
    let mut findings = Findings::default();
    for (point, name) in points {
        let (_, golden) = goldens.f32(&format!("trace/{}/{name}", mode.name()));
        // The golden's MTP tensors stop one slot short: the last token has no follower.
        let error = relative_error(&seen.hidden[&point][..golden.len()], &golden);
        findings.notes.push(format!("{name}: relative error {error:.1e}"));
        findings.expect(error < tolerance, || format!("{name}: relative error {error:e}, tolerance {tolerance:e}"));
    }
    for layer in 1..=layers {
        let name = if layer == layers { "mtp".to_owned() } else { format!("layer{layer}") };
        compare_routing(goldens, mode, &name, &seen.routing[&layer], tolerance, &mut findings);
    }
    findings
}

fn compare_routing(
    goldens: &Goldens,
    mode: GoldenMode,
    name: &str,
    (ids, weights): &(Vec<u32>, Vec<f32>),
    tolerance: f32,
    findings: &mut Findings,
) {
    let (top_k, golden_ids) = goldens.i32(&format!("trace/{}/{name}.router_idx", mode.name()));
    let (_, golden_weights) = goldens.f32(&format!("trace/{}/{name}.router_w", mode.name()));
    let by_expert = |ids: &mut dyn Iterator<Item = u32>, weights: &[f32]| {
        let mut row: Vec<(u32, f32)> = ids.zip(weights.iter().copied()).collect();
        row.sort_by_key(|(id, _)| *id);
        row
    };
    let rows = golden_ids.chunks(top_k).zip(golden_weights.chunks(top_k));
    for (t, (golden_ids, golden_weights)) in rows.enumerate() {
        let golden = by_expert(&mut golden_ids.iter().map(|id| *id as u32), golden_weights);
        let found = by_expert(&mut ids[t * top_k..][..top_k].iter().copied(), &weights[t * top_k..][..top_k]);
        let same = golden.iter().zip(&found).all(|(g, f)| g.0 == f.0 && (g.1 - f.1).abs() < tolerance);
        findings.expect(same, || format!("{name}: token {t}: routing {found:?}, golden {golden:?}"));
    }
}
