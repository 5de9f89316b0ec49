//! The choice of the highest logit.

use engine_core::backend::{Backend, NO_TOKEN};

use crate::harness::{Output, Rig, Rng, Stop, Tolerance};
use crate::oracle::{Oracle, argmax};

/// Rows of one kind over one vocabulary.
#[derive(Debug, Clone, Copy)]
pub struct ArgmaxCase {
    kind: Kind,
    rows: usize,
    vocab: usize,
    /// Columns that take part; the others hold what would win.
    num_ids: usize,
}

/// What the rows hold; the last row always has a highest value, and not at id 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Random values, one above the rest.
    Distinct,
    /// The highest value many times.
    Ties,
    /// Zeros of both signs, everything else below.
    Zeros,
    /// −∞, but for the lowest finite number.
    NegativeInfinity,
    /// +∞ many times.
    Infinity,
    /// NaN of both signs among the others.
    NotANumber,
    /// All but the last row of −∞ and NaN alone.
    Nothing,
}

impl Kind {
    const ALL: [Kind; 7] = [
        Kind::Distinct,
        Kind::Ties,
        Kind::Zeros,
        Kind::NegativeInfinity,
        Kind::Infinity,
        Kind::NotANumber,
        Kind::Nothing,
    ];

    fn name(self) -> &'static str {
        match self {
            Kind::Distinct => "distinct",
            Kind::Ties => "ties",
            Kind::Zeros => "zeros of both signs",
            Kind::NegativeInfinity => "minus infinity",
            Kind::Infinity => "infinity",
            Kind::NotANumber => "NaN",
            Kind::Nothing => "nothing",
        }
    }

    /// Any value but the highest.
    fn other(self, rng: &mut Rng) -> f32 {
        match self {
            Kind::Distinct | Kind::Ties | Kind::Infinity => rng.normal(),
            Kind::Zeros => -0.5 - rng.normal().abs(),
            Kind::NegativeInfinity => f32::NEG_INFINITY,
            Kind::NotANumber | Kind::Nothing => match (rng.below(4), self) {
                (0, _) => f32::NAN,
                (1, _) => -f32::NAN,
                (_, Kind::Nothing) => f32::NEG_INFINITY,
                _ => rng.normal(),
            },
        }
    }

    /// The highest value; `is_first` at its lowest id.
    fn highest(self, is_first: bool) -> f32 {
        match self {
            Kind::Distinct | Kind::Ties | Kind::NotANumber | Kind::Nothing => 4.0,
            Kind::Zeros if is_first => -0.0,
            Kind::Zeros => 0.0,
            Kind::NegativeInfinity => f32::MIN,
            Kind::Infinity => f32::INFINITY,
        }
    }

    fn repeats(self) -> bool {
        match self {
            Kind::Ties | Kind::Zeros | Kind::NegativeInfinity | Kind::Infinity => true,
            Kind::Distinct | Kind::NotANumber | Kind::Nothing => false,
        }
    }
}

pub(super) fn cases() -> Vec<ArgmaxCase> {
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        // One row; some; many, over a vocabulary that is no multiple of anything; ids without a token.
        for (rows, vocab, num_ids) in [(1, 160, 160), (5, 33, 33), (64, 1031, 1031), (3, 4099, 4001)] {
            let rows = if kind == Kind::Nothing { rows + 1 } else { rows };
            cases.push(ArgmaxCase { kind, rows, vocab, num_ids });
        }
    }
    // DeepSeek-V3's head and the entries of its tokenizer.
    cases.push(ArgmaxCase { kind: Kind::Ties, rows: 2, vocab: 129_280, num_ids: 128_815 });
    cases
}

impl ArgmaxCase {
    pub(super) fn name(&self) -> String {
        let Self { kind, rows, vocab, num_ids } = self;
        format!("argmax/{}/{num_ids} of {vocab}/rows {rows}", kind.name())
    }

    pub(super) fn tolerance(&self) -> Tolerance {
        Tolerance { nmse: 0.0, max_error: 0.0, reason: "a choice".into() }
    }

    fn logits(&self) -> Vec<f32> {
        let mut rng = Rng::from_name(&self.name());
        let mut logits = Vec::with_capacity(self.rows * self.vocab);
        for row in 0..self.rows {
            let is_last = row + 1 == self.rows;
            let first = match row {
                _ if is_last => 1 + rng.below(self.num_ids - 1),
                0 => 0,
                1 => self.num_ids - 1,
                _ => rng.below(self.num_ids),
            };
            let has_highest = self.kind != Kind::Nothing || is_last;
            for id in 0..self.vocab {
                let other = self.kind.other(&mut rng);
                let repeats = self.kind.repeats() && id > first && rng.below(8) == 0;
                logits.push(match id {
                    _ if id >= self.num_ids => f32::INFINITY,
                    _ if has_highest && (id == first || repeats) => self.kind.highest(id == first),
                    _ => other,
                });
            }
        }
        logits
    }

    pub(super) fn run_on<B: Backend>(&self, rig: &mut Rig<'_, B>) -> Result<Vec<Output>, Stop> {
        let logits = rig.input("logits", self.vocab, &self.logits())?;
        let mut out = rig.output::<u32>("out", self.rows, 1)?;
        rig.backend.argmax(&mut rig.stream, &logits.tensor, self.num_ids, &mut out.tensor)?;
        rig.expect_unchanged(&logits)?;
        Ok(vec![rig.read(&out)?])
    }

    pub(super) fn oracle(&self, _: Oracle) -> Vec<Output> {
        let logits = self.logits();
        let choose = |row: &[f32]| argmax(&row[..self.num_ids]).map_or(NO_TOKEN as f32, |id| id as f32);
        vec![Output::new("out", 1, logits.chunks(self.vocab).map(choose).collect())]
    }
}
