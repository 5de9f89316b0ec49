//! The choice of the highest logits, and the weight of all of them.

use engine_core::backend::{Backend, NO_TOKEN, TopLogits, Unsupported};

use super::logit_rows::{Kind, LogitRows};
use crate::harness::{Output, Rig, Stop, Tolerance};
use crate::oracle::{Oracle, highest, weight};

/// So many of rows of one kind.
#[derive(Debug, Clone, Copy)]
pub struct TopLogitsCase {
    logits: LogitRows,
    num_top: usize,
}

/// Of the rows, in turn.
const INVERSE_TEMPERATURES: [f32; 3] = [1.0, 1.7, 0.4];

pub(super) fn cases() -> Vec<TopLogitsCase> {
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        // One of a row; more than there are; some, over several segments of a row; ids without a token.
        for (rows, vocab, num_ids, num_top) in
            [(5, 33, 33, 1), (2, 160, 160, 256), (3, 1031, 1031, 64), (3, 4099, 4001, 20)]
        {
            let rows = if kind == Kind::Nothing { rows + 1 } else { rows };
            cases.push(TopLogitsCase { logits: LogitRows { kind, rows, vocab, num_ids }, num_top });
        }
    }
    // DeepSeek-V3's head and the entries of its tokenizer, as the engine asks for them.
    for kind in [Kind::Distinct, Kind::Ties] {
        let logits = LogitRows { kind, rows: 2, vocab: 129_280, num_ids: 128_815 };
        cases.push(TopLogitsCase { logits, num_top: 256 });
    }
    cases
}

impl TopLogitsCase {
    pub(super) fn name(&self) -> String {
        format!("top_logits/{} of {}", self.num_top, self.logits)
    }

    pub(super) fn tolerance(&self) -> Tolerance {
        let reason =
            "a choice, wrong by 1; f32 exponents of arguments to 87 units, and f32 sums of positive terms".into();
        Tolerance { nmse: 1e-10, max_error: 2e-5, reason }
    }

    fn inverse_temperatures(&self) -> Vec<f32> {
        INVERSE_TEMPERATURES.into_iter().cycle().take(self.logits.rows).collect()
    }

    /// 1 for each id that is chosen, `[rows, num_ids]`, and the weights, `[rows, 1]`; 0 of rows without one.
    fn outputs(&self, chosen: Vec<f32>, totals: Vec<f32>) -> Vec<Output> {
        vec![Output::new("chosen", self.logits.num_ids, chosen), Output::new("totals", 1, totals)]
    }

    pub(super) fn run_on<B: Backend>(&self, rig: &mut Rig<'_, B>) -> Result<Vec<Output>, Stop> {
        if !rig.backend.finds_top_logits() {
            return Err(Stop::Unsupported(Unsupported {
                backend: rig.backend.capabilities().backend.clone(),
                what: "top logits".into(),
                reason: "it has no such op".into(),
                action: "whole rows are read for a draw".into(),
            }));
        }
        let LogitRows { rows, vocab, num_ids, .. } = self.logits;
        let values = self.logits.values(&self.name());
        let logits = rig.input("logits", vocab, &values)?;
        let temperatures = rig.input("inverse_temperatures", 1, &self.inverse_temperatures())?;
        let mut out = rig.output::<u32>("out", rows, TopLogits::num_words(self.num_top))?;
        let (logits_in, scales) = (&logits.tensor, &temperatures.tensor);
        rig.backend.top_logits(&mut rig.stream, logits_in, scales, num_ids, &mut out.tensor)?;
        rig.expect_unchanged(&logits)?;
        rig.expect_unchanged(&temperatures)?;
        let words = rig.values(&out)?;
        let (mut chosen, mut totals) = (vec![0.0; rows * num_ids], Vec::new());
        for (row, words) in words.chunks(TopLogits::num_words(self.num_top)).enumerate() {
            let top = TopLogits::from_words(words);
            let row_values = &values[row * vocab..][..num_ids];
            mark(top, row_values, &mut chosen[row * num_ids..][..num_ids])
                .map_err(|what| Stop::Failed(format!("row {row}: {what}")))?;
            totals.push(if has_weight(row_values) { top.total } else { 0.0 });
        }
        Ok(self.outputs(chosen, totals))
    }

    pub(super) fn oracle(&self, _: Oracle) -> Vec<Output> {
        let LogitRows { rows, vocab, num_ids, .. } = self.logits;
        let values = self.logits.values(&self.name());
        let (mut chosen, mut totals) = (vec![0.0; rows * num_ids], Vec::new());
        for (row, scale) in self.inverse_temperatures().into_iter().enumerate() {
            let row_values = &values[row * vocab..][..num_ids];
            for id in highest(row_values).into_iter().take(self.num_top) {
                chosen[row * num_ids + id] = 1.0;
            }
            let total = weight(row_values, f64::from(scale)) as f32;
            totals.push(if has_weight(row_values) { total } else { 0.0 });
        }
        self.outputs(chosen, totals)
    }
}

/// Where the highest is +∞, or there is none, the weight means nothing.
fn has_weight(values: &[f32]) -> bool {
    highest(values).first().is_some_and(|id| values[*id] < f32::INFINITY)
}

/// Counts each id once, which must come with its logit; places without an id hold −∞.
fn mark(top: TopLogits<'_>, values: &[f32], chosen: &mut [f32]) -> Result<(), String> {
    for (id, logit) in top.ids.iter().zip(top.logits) {
        match values.get(*id as usize) {
            Some(value) if value == logit => chosen[*id as usize] += 1.0,
            Some(value) => return Err(format!("id {id} has logit {value}, found {logit}")),
            None if (*id, *logit) == (NO_TOKEN, f32::NEG_INFINITY) => {}
            None => return Err(format!("{id} is no id, with logit {logit}")),
        }
    }
    Ok(())
}
