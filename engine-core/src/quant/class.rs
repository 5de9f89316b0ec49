//! Which weight gets which precision, as data.

use super::WeightError;

/// What a user asks for. `Auto` keeps what the checkpoint has where the device can run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Precision {
    /// Keep the checkpoint's format where the device can run it.
    #[default]
    Auto,
    /// FP8 e4m3, 128 x 128 block scales.
    Fp8,
    /// bfloat16.
    Bf16,
    /// INT8 per channel, W8A8 where the device quantises activations.
    Int8,
    /// INT4 in groups, weight only.
    Int4,
}

/// Groups of weights that may be given different precisions. Norms, embedding, head, router and `eh_proj` are never
/// quantised and have no class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightClass {
    /// `q_a`, `q_b`/`q`, `kv_a` and `o` projections.
    Attention,
    /// `kv_b_proj`, which the absorbed form of MLA folds into queries and outputs: it stays bf16 when INT8 or INT4 is
    /// asked for without naming it.
    KvB,
    /// FFN of the dense layers.
    DenseFfn,
    /// Routed experts.
    Experts,
    /// Shared experts.
    SharedExperts,
}

impl WeightClass {
    /// Every class, in the order of messages.
    pub const ALL: [WeightClass; 5] = [
        WeightClass::Attention,
        WeightClass::KvB,
        WeightClass::DenseFfn,
        WeightClass::Experts,
        WeightClass::SharedExperts,
    ];

    /// Name in a policy string.
    pub fn name(self) -> &'static str {
        match self {
            WeightClass::Attention => "attention",
            WeightClass::KvB => "kv_b",
            WeightClass::DenseFfn => "dense_ffn",
            WeightClass::Experts => "experts",
            WeightClass::SharedExperts => "shared_experts",
        }
    }
}

/// A precision for every class of weight: `int8`, or `experts=int4,attention=fp8`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrecisionPolicy {
    default: Precision,
    overrides: Vec<(WeightClass, Precision)>,
}

impl PrecisionPolicy {
    /// One precision for everything.
    pub fn uniform(default: Precision) -> Self {
        Self { default, overrides: Vec::new() }
    }

    /// Sets one class.
    #[must_use]
    pub fn with(mut self, class: WeightClass, precision: Precision) -> Self {
        self.overrides.retain(|(c, _)| *c != class);
        self.overrides.push((class, precision));
        self
    }

    /// The precision asked for `class`.
    pub fn get(&self, class: WeightClass) -> Precision {
        if let Some((_, precision)) = self.overrides.iter().find(|(c, _)| *c == class) {
            return *precision;
        }
        match (class, self.default) {
            (WeightClass::KvB, Precision::Int8 | Precision::Int4) => Precision::Bf16,
            (_, precision) => precision,
        }
    }
}

impl From<Precision> for PrecisionPolicy {
    fn from(precision: Precision) -> Self {
        Self::uniform(precision)
    }
}

impl std::str::FromStr for Precision {
    type Err = WeightError;
    fn from_str(text: &str) -> Result<Self, WeightError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Precision::Auto),
            "fp8" => Ok(Precision::Fp8),
            "bf16" => Ok(Precision::Bf16),
            "int8" => Ok(Precision::Int8),
            "int4" => Ok(Precision::Int4),
            _ => Err(unknown(text)),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Precision::Auto => "auto",
            Precision::Fp8 => "fp8",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
            Precision::Int4 => "int4",
        })
    }
}

impl std::str::FromStr for PrecisionPolicy {
    type Err = WeightError;
    fn from_str(text: &str) -> Result<Self, WeightError> {
        let mut policy = PrecisionPolicy::default();
        for part in text.split(',') {
            match part.split_once('=') {
                None => policy.default = part.parse()?,
                Some((class, precision)) => {
                    let class =
                        WeightClass::ALL.into_iter().find(|c| c.name() == class.trim()).ok_or_else(|| unknown(part))?;
                    policy = policy.with(class, precision.parse()?);
                }
            }
        }
        Ok(policy)
    }
}

impl std::fmt::Display for PrecisionPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.default)?;
        for (class, precision) in &self.overrides {
            write!(f, ",{}={precision}", class.name())?;
        }
        Ok(())
    }
}

fn unknown(text: &str) -> WeightError {
    WeightError::UnknownPrecision {
        found: text.to_owned(),
        classes: WeightClass::ALL.map(WeightClass::name).join(", "),
    }
}
