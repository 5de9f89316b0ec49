//! What the reference rounds, and when.

use half::bf16;

use crate::quant::{ActivationScheme, QuantisedInputs, act};

/// Element that activations are rounded to between ops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActivationRounding {
    /// No rounding beyond f32.
    #[default]
    F32,
    /// bf16 after every op (values stay in f32 memory).
    Bf16,
}

/// Which form of MLA computes the attention; equal up to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MlaForm {
    /// W_UK folded into the queries, W_UV into the output: attention runs on the latent cache.
    #[default]
    Absorbed,
    /// Keys and values are expanded from the latent cache.
    NonAbsorbed,
}

/// Rounding as a parameter. `Default` is exact f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numerics {
    /// Between ops.
    pub activations: ActivationRounding,
    /// Which linears quantise their inputs; the weights of the others are expanded.
    pub linears: QuantisedInputs,
    /// Inside attention.
    pub mla_form: MlaForm,
}

impl Numerics {
    /// Rounds an op's output.
    pub(super) fn round(self, values: &mut [f32]) {
        match self.activations {
            ActivationRounding::F32 => {}
            ActivationRounding::Bf16 => values.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32()),
        }
    }

    /// Replaces one token's input of a linear by what survives its quantisation.
    pub(super) fn quantise_input(self, scheme: ActivationScheme, x: &mut [f32]) {
        match self.linears.applied(scheme) {
            ActivationScheme::Float => {}
            ActivationScheme::Fp8Group { ue8m0 } => act::fp8_round_trip(x, ue8m0),
            ActivationScheme::Int8Token => act::int8_round_trip(x),
        }
    }
}

impl std::fmt::Display for Numerics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let activations = match self.activations {
            ActivationRounding::F32 => "f32 activations",
            ActivationRounding::Bf16 => "bf16 activations",
        };
        let form = match self.mla_form {
            MlaForm::Absorbed => "absorbed MLA",
            MlaForm::NonAbsorbed => "non-absorbed MLA",
        };
        write!(f, "{activations}, linears: {}, {form}", self.linears)
    }
}
