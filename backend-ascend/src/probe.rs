//! Whether a device can be used, and if not, why.

use engine_core::backend::Unavailable;

use crate::driver::{Absence, AscendError, Libraries, Operator};

/// Operators that every model needs. The others have a substitute, or are needed for INT8 only.
const REQUIRED: [Operator; 22] = [
    Operator::aclnnInplaceCopy,
    Operator::aclnnInplaceAdd,
    Operator::aclnnInplaceMuls,
    Operator::aclnnCat,
    Operator::aclnnNanToNum,
    Operator::aclnnMaxDim,
    Operator::aclnnEqScalar,
    Operator::aclnnSWhere,
    Operator::aclnnIndexSelect,
    Operator::aclnnGather,
    Operator::aclnnEmbedding,
    Operator::aclnnRmsNorm,
    Operator::aclnnSoftmax,
    Operator::aclnnSwiGlu,
    Operator::aclnnMatmul,
    Operator::aclnnBatchMatMul,
    Operator::aclnnRotaryPositionEmbedding,
    Operator::aclnnScatterPaKvCache,
    Operator::aclnnMoeGatingTopK,
    Operator::aclnnMoeInitRoutingV3,
    Operator::aclnnMoeFinalizeRoutingV2,
    Operator::aclnnGroupedMatmulV5,
];
/// Operators that INT8 weights need besides.
const REQUIRED_BY_INT8: [Operator; 2] = [Operator::aclnnDynamicQuant, Operator::aclnnQuantMatmulV5];

/// Names of Atlas A2 begin with `Ascend910B` and of Atlas A3 with `Ascend910_93`.
const PRODUCTS: [(&str, &str); 2] = [("Ascend910B", "Atlas A2"), ("Ascend910_93", "Atlas A3")];

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A library is not there.
    NoLibrary {
        /// The names that were tried.
        tried: Vec<&'static str>,
    },
    /// A library lacks a function that every version has; the loader's words.
    MissingFunction(String),
    /// The operators of this CANN are too few.
    MissingOperators(Vec<&'static str>),
    /// The runtime sees no device.
    NoDevice,
    /// There are fewer devices.
    NoSuchDevice {
        /// How many there are.
        count: u32,
    },
    /// Another product than Atlas A2 and A3.
    UnknownProduct(String),
    /// CANN does not do what it should; its words.
    Failed(String),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::NoLibrary { tried } => write!(
                f,
                "no CANN: {} cannot be loaded; install CANN 9.0 or later and run `source set_env.sh` first",
                tried.join(" or ")
            ),
            Reason::MissingFunction(words) => {
                write!(f, "CANN lacks a function ({words}); install CANN 9.0 or later")
            }
            Reason::MissingOperators(names) => {
                write!(f, "this CANN has no {}; install CANN 9.0 or later", names.join(", "))
            }
            Reason::NoDevice => {
                write!(f, "CANN sees no device; check `npu-smi info` and ASCEND_RT_VISIBLE_DEVICES")
            }
            Reason::NoSuchDevice { count } => {
                write!(f, "CANN sees {count} device{}, counted from 0", if *count == 1 { "" } else { "s" })
            }
            Reason::UnknownProduct(name) => {
                write!(f, "it is an {name}; this backend is made for Atlas A2 (Ascend910B) and A3 (Ascend910_93)")
            }
            Reason::Failed(words) => write!(f, "CANN fails: {words}; check `npu-smi info`"),
        }
    }
}

impl From<AscendError> for Reason {
    fn from(error: AscendError) -> Self {
        if error.is_no_device() { Reason::NoDevice } else { Reason::Failed(error.to_string()) }
    }
}

impl From<Absence> for Reason {
    fn from(absence: Absence) -> Self {
        match absence {
            Absence::Library(names) => Reason::NoLibrary { tried: names.to_vec() },
            Absence::Function(words) => Reason::MissingFunction(words),
            Absence::Failed(error) => error.into(),
        }
    }
}

/// A device that can be used.
#[derive(Debug)]
pub(crate) struct Usable {
    pub(crate) libraries: Libraries,
    /// `Ascend910B1`, say.
    pub(crate) name: String,
    /// `Atlas A2` or `Atlas A3`.
    pub(crate) product: &'static str,
    /// True where INT8 weights can be used.
    pub(crate) has_int8: bool,
    /// True where there is fused attention over the paged cache.
    pub(crate) has_fused_attention: bool,
    pub(crate) fused: Fused,
}

/// Operators that do what two or more others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fused {
    /// A sum and its norm.
    pub(crate) add_rms_norm: bool,
    /// Norm, rope and cache of the key part of attention.
    pub(crate) keys: bool,
    /// The whole first half of attention.
    pub(crate) prolog: bool,
    /// Products of bf16 weights in NZ.
    pub(crate) bf16_in_nz: bool,
    /// INT8 products that take weights in NZ.
    pub(crate) int8_in_nz: bool,
    /// Gate and up of INT8 experts, SwiGlu and the codes of the result.
    pub(crate) experts: bool,
}

/// How many devices CANN sees.
///
/// # Errors
/// Why there is none that could be used.
pub fn num_devices() -> Result<u32, Reason> {
    count(&Libraries::open()?)
}

fn count(libraries: &Libraries) -> Result<u32, Reason> {
    match libraries.num_devices()? {
        0 => Err(Reason::NoDevice),
        count => Ok(count),
    }
}

/// Checks that a device can be used, without allocating anything on it.
pub(crate) fn find(ordinal: u32) -> Result<Usable, Reason> {
    let libraries = Libraries::open()?;
    let count = count(&libraries)?;
    if ordinal >= count {
        return Err(Reason::NoSuchDevice { count });
    }
    let missing = |operators: &[Operator]| -> Vec<&'static str> {
        operators.iter().filter(|operator| !libraries.has(**operator)).map(|operator| operator.name()).collect()
    };
    let absent = missing(&REQUIRED);
    if !absent.is_empty() {
        return Err(Reason::MissingOperators(absent));
    }
    let name = libraries.product();
    let Some((_, product)) = PRODUCTS.into_iter().find(|(prefix, _)| name.starts_with(prefix)) else {
        return Err(Reason::UnknownProduct(name));
    };
    let has_int8 = missing(&REQUIRED_BY_INT8).is_empty();
    let has_fused_attention = libraries.has(Operator::aclnnFusedInferAttentionScoreV4);
    let has_all = |operators: &[Operator]| missing(operators).is_empty();
    let fused = Fused {
        add_rms_norm: has_all(&[Operator::aclnnAddRmsNorm]),
        keys: has_all(&[Operator::aclnnKvRmsNormRopeCache]),
        prolog: has_all(&[Operator::aclnnMlaPrologV3WeightNz]),
        bf16_in_nz: has_all(&[Operator::aclnnMatmulWeightNz]),
        int8_in_nz: has_all(&[Operator::aclnnQuantMatmulWeightNz]),
        experts: has_all(&[Operator::aclnnGroupedMatmulSwigluQuantWeightNZ]),
    };
    Ok(Usable { libraries, name, product, has_int8, has_fused_attention, fused })
}

/// A reason, for users.
pub(crate) fn unavailable(ordinal: u32, reason: &Reason) -> Unavailable {
    Unavailable { device: format!("ascend:{ordinal}"), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_names_the_values_and_what_to_do() {
        for (reason, words) in [
            (Reason::NoLibrary { tried: vec!["libacl_rt.so", "libascendcl.so"] }, ["libascendcl.so", "set_env.sh"]),
            (Reason::MissingFunction("undefined symbol: aclrtFree".into()), ["aclrtFree", "9.0"]),
            (Reason::MissingOperators(vec!["aclnnA", "aclnnB"]), ["no aclnnA, aclnnB", "9.0"]),
            (Reason::NoDevice, ["no device", "ASCEND_RT_VISIBLE_DEVICES"]),
            (Reason::NoSuchDevice { count: 2 }, ["2 devices", "from 0"]),
            (Reason::UnknownProduct("Ascend310P3".into()), ["Ascend310P3", "Atlas A2"]),
            (Reason::Failed("aclInit answered 1".into()), ["aclInit answered 1", "npu-smi"]),
        ] {
            let text = unavailable(3, &reason).to_string();
            assert!(text.contains("ascend:3") && words.iter().all(|word| text.contains(word)), "{text}");
        }
    }

    #[test]
    fn every_operator_is_required_or_has_a_reason_not_to_be() {
        let known = [REQUIRED.as_slice(), &REQUIRED_BY_INT8].concat();
        let others: Vec<&str> =
            Operator::ALL.iter().filter(|operator| !known.contains(operator)).map(|operator| operator.name()).collect();
        let substituted = [
            "aclnnAddRmsNorm",
            "aclnnMatmulWeightNz",
            "aclnnQuantMatmulWeightNz",
            "aclnnKvRmsNormRopeCache",
            "aclnnMlaPrologV3WeightNz",
            "aclnnFusedInferAttentionScoreV4",
            "aclnnGroupedMatmulSwigluQuantWeightNZ",
        ];
        assert_eq!(others, substituted);
    }
}
