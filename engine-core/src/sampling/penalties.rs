//! Bias and penalties: what changes logits according to the request and to the tokens so far.

use super::{History, SamplingParams};

/// Marks an id whose penalties have been applied.
const DONE: u32 = u32::MAX;

/// Adds `logit_bias` to the logits; ids beyond them are passed over.
pub(super) fn apply_bias(params: &SamplingParams, logits: &mut [f32]) {
    for (&id, &bias) in &params.logit_bias {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += bias;
        }
    }
}

/// Applies the repetition penalty to ids in prompt or output, then frequency and presence penalties to those in the
/// output: `l ← l / r` if `l > 0` else `l · r`, then `l ← l − f · count − p`. `counts` is scratch, all zero between
/// calls.
pub(super) fn apply_penalties(
    params: &SamplingParams,
    history: History<'_>,
    logits: &mut [f32],
    counts: &mut Vec<u32>,
) {
    if !params.has_penalties() {
        return;
    }
    let prompt = if params.repetition_penalty != 1.0 { history.prompt } else { &[] };
    if counts.len() < logits.len() {
        counts.resize(logits.len(), 0);
    }
    let in_range = |id: &&u32| (**id as usize) < logits.len();
    for &id in history.output.iter().filter(in_range) {
        counts[id as usize] += 1;
    }
    for &id in history.output.iter().chain(prompt) {
        let Some(logit) = logits.get_mut(id as usize) else { continue };
        let count = std::mem::replace(&mut counts[id as usize], DONE);
        if count == DONE {
            continue;
        }
        let penalty = params.repetition_penalty;
        *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        if count > 0 {
            *logit -= params.frequency_penalty * count as f32 + params.presence_penalty;
        }
    }
    for &id in history.output.iter().chain(prompt) {
        if let Some(count) = counts.get_mut(id as usize) {
            *count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalised(params: SamplingParams, prompt: &[u32], output: &[u32], logits: &[f32]) -> Vec<f32> {
        let mut logits = logits.to_vec();
        let mut counts = Vec::new();
        apply_penalties(&params, History { prompt, output }, &mut logits, &mut counts);
        assert!(counts.iter().all(|&c| c == 0));
        logits
    }

    #[test]
    fn penalties_follow_their_formulas() {
        let logits = [2.0, -2.0, 1.0, 4.0, 0.0];
        let d = SamplingParams::default;
        let repetition = SamplingParams { repetition_penalty: 2.0, ..d() };
        // Once each, however often and wherever the id stands; id 9 is out of range.
        assert_eq!(penalised(repetition, &[0, 0, 1, 9], &[0, 3], &logits), [1.0, -4.0, 1.0, 2.0, 0.0]);
        let frequency = SamplingParams { frequency_penalty: 0.5, ..d() };
        assert_eq!(penalised(frequency, &[0, 1], &[0, 3, 3, 9], &logits), [1.5, -2.0, 1.0, 3.0, 0.0]);
        let presence = SamplingParams { presence_penalty: 0.5, ..d() };
        assert_eq!(penalised(presence, &[0, 1], &[0, 3, 3], &logits), [1.5, -2.0, 1.0, 3.5, 0.0]);
        let all = SamplingParams { repetition_penalty: 2.0, frequency_penalty: 0.5, presence_penalty: 0.25, ..d() };
        assert_eq!(penalised(all, &[1], &[0, 0], &logits), [1.0 - 1.25, -4.0, 1.0, 4.0, 0.0]);
        assert_eq!(penalised(d(), &[0], &[0], &logits), logits);
    }

    #[test]
    fn bias_is_added_where_the_logits_reach() {
        let mut logits = [1.0, 2.0];
        let params = SamplingParams { logit_bias: [(1, -0.5), (7, 3.0)].into(), ..SamplingParams::default() };
        apply_bias(&params, &mut logits);
        assert_eq!(logits, [1.0, 1.5]);
    }
}
