//! The choice of the highest logit.

use engine_core::backend::{Backend, NO_TOKEN};

use super::logit_rows::{Kind, LogitRows};
use crate::harness::{Output, Rig, Stop, Tolerance};
use crate::oracle::{Oracle, argmax};

/// Rows of one kind over one vocabulary.
#[derive(Debug, Clone, Copy)]
pub struct ArgmaxCase(LogitRows);

pub(super) fn cases() -> Vec<ArgmaxCase> {
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        // One row; some; many, over a vocabulary that is no multiple of anything; ids without a token.
        for (rows, vocab, num_ids) in [(1, 160, 160), (5, 33, 33), (64, 1031, 1031), (3, 4099, 4001)] {
            let rows = if kind == Kind::Nothing { rows + 1 } else { rows };
            cases.push(ArgmaxCase(LogitRows { kind, rows, vocab, num_ids }));
        }
    }
    // DeepSeek-V3's head and the entries of its tokenizer.
    cases.push(ArgmaxCase(LogitRows { kind: Kind::Ties, rows: 2, vocab: 129_280, num_ids: 128_815 }));
    cases
}

impl ArgmaxCase {
    pub(super) fn name(&self) -> String {
        format!("argmax/{}", self.0)
    }

    pub(super) fn tolerance(&self) -> Tolerance {
        Tolerance { nmse: 0.0, max_error: 0.0, reason: "a choice".into() }
    }

    pub(super) fn run_on<B: Backend>(&self, rig: &mut Rig<'_, B>) -> Result<Vec<Output>, Stop> {
        let logits = rig.input("logits", self.0.vocab, &self.0.values(&self.name()))?;
        let mut out = rig.output::<u32>("out", self.0.rows, 1)?;
        rig.backend.argmax(&mut rig.stream, &logits.tensor, self.0.num_ids, &mut out.tensor)?;
        rig.expect_unchanged(&logits)?;
        Ok(vec![rig.read(&out)?])
    }

    pub(super) fn oracle(&self, _: Oracle) -> Vec<Output> {
        let logits = self.0.values(&self.name());
        let choose = |row: &[f32]| argmax(&row[..self.0.num_ids]).map_or(NO_TOKEN as f32, |id| id as f32);
        vec![Output::new("out", 1, logits.chunks(self.0.vocab).map(choose).collect())]
    }
}
