//! Rows of logits with all that makes a choice among them hard.

use crate::harness::Rng;

/// Rows of one kind over one vocabulary.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogitRows {
    pub(super) kind: Kind,
    pub(super) rows: usize,
    pub(super) vocab: usize,
    /// Columns that take part; the others hold what would win.
    pub(super) num_ids: usize,
}

/// What the rows hold; the last row always has a highest value, and not at id 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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
    pub(super) const ALL: [Kind; 7] = [
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

impl std::fmt::Display for LogitRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, rows, vocab, num_ids } = self;
        write!(f, "{}/{num_ids} of {vocab}/rows {rows}", kind.name())
    }
}

impl LogitRows {
    /// `[rows, vocab]`; the case's name is the seed.
    pub(super) fn values(&self, name: &str) -> Vec<f32> {
        let mut rng = Rng::from_name(name);
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
}
