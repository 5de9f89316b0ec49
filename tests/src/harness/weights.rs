//! Random weights in every format, made from stored bytes by hand: what a byte means is written down here a second
//! time, in f64, so that the formats of `engine_core::quant` are part of what is tested.

use engine_core::quant::{
    Bf16Weight, F32Weight, Fp8BlockWeight, HostWeight, Int4GroupWeight, Int8ChannelWeight, MatrixShape,
    QuantisedInputs, ScaleFormat, WeightError,
};
use half::bf16;

use super::Rng;
use crate::oracle::{InputQuantisation, Linear};

/// A weight format with its variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// f32.
    F32,
    /// bf16.
    Bf16,
    /// FP8 with arbitrary block scales.
    Fp8,
    /// FP8 with power-of-two block scales and `scale_fmt: ue8m0`.
    Fp8Ue8m0,
    /// INT8 per channel.
    Int8,
    /// INT4 in groups of 32.
    Int4,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 6] = [Format::F32, Format::Bf16, Format::Fp8, Format::Fp8Ue8m0, Format::Int8, Format::Int4];

    /// Name in case names.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
            Format::Fp8 => "fp8",
            Format::Fp8Ue8m0 => "fp8-ue8m0",
            Format::Int8 => "int8",
            Format::Int4 => "int4",
        }
    }

    /// Largest part of an activation's value that one step of this format's activation quantisation can be, if its inputs
    /// are quantised: half of e4m3's 1/8, and 1/127 of the row's largest.
    pub fn input_step(self, quantised: QuantisedInputs) -> Option<f64> {
        match self {
            Format::Fp8 | Format::Fp8Ue8m0 if quantised.fp8 => Some(0.125),
            Format::Int8 if quantised.int8 => Some(4.0 / 127.0),
            Format::F32 | Format::Bf16 | Format::Fp8 | Format::Fp8Ue8m0 | Format::Int8 | Format::Int4 => None,
        }
    }

    fn input_quantisation(self) -> InputQuantisation {
        match self {
            Format::F32 | Format::Bf16 | Format::Int4 => InputQuantisation::None,
            Format::Fp8 => InputQuantisation::Fp8 { ue8m0: false },
            Format::Fp8Ue8m0 => InputQuantisation::Fp8 { ue8m0: true },
            Format::Int8 => InputQuantisation::Int8,
        }
    }
}

/// A weight as a backend gets it and as the oracle sees it.
#[derive(Debug, Clone)]
pub struct TestWeight {
    /// For the backend.
    pub host: HostWeight,
    /// For the oracle.
    pub linear: Linear,
}

impl TestWeight {
    /// Random `[out, in]` such that unit-variance inputs give outputs of about unit variance.
    pub fn random(rng: &mut Rng, format: Format, out: usize, inp: usize) -> Self {
        let made = match format {
            Format::F32 => f32_weight(rng, out, inp),
            Format::Bf16 => bf16_weight(rng, out, inp),
            Format::Fp8 => fp8_weight(rng, out, inp, ScaleFormat::F32),
            Format::Fp8Ue8m0 => fp8_weight(rng, out, inp, ScaleFormat::Ue8m0),
            Format::Int8 => int8_weight(rng, out, inp),
            Format::Int4 => int4_weight(rng, out, inp),
        };
        let (host, real) =
            made.unwrap_or_else(|error| unreachable!("a {} weight of the suite: {error}", format.name()));
        Self { host, linear: Linear::new(out, inp, real, format.input_quantisation()) }
    }

    /// An f32 weight with the given values.
    pub fn from_f32(out: usize, inp: usize, values: Vec<f32>) -> Self {
        let real = values.iter().map(|v| f64::from(*v)).collect();
        let host = F32Weight::new(MatrixShape::new(out, inp), values.into());
        let host = host.unwrap_or_else(|error| unreachable!("an f32 weight of the suite: {error}"));
        Self { host: HostWeight::F32(host), linear: Linear::new(out, inp, real, InputQuantisation::None) }
    }
}

type Made = Result<(HostWeight, Vec<f64>), WeightError>;

fn f32_weight(rng: &mut Rng, out: usize, inp: usize) -> Made {
    let values = rng.normals(out * inp, (inp as f32).sqrt().recip());
    let real = values.iter().map(|v| f64::from(*v)).collect();
    Ok((HostWeight::F32(F32Weight::new(MatrixShape::new(out, inp), values.into())?), real))
}

fn bf16_weight(rng: &mut Rng, out: usize, inp: usize) -> Made {
    let values: Vec<bf16> =
        rng.normals(out * inp, (inp as f32).sqrt().recip()).into_iter().map(bf16::from_f32).collect();
    // A bf16 is the upper half of an f32.
    let real = values.iter().map(|v| f64::from(f32::from_bits(u32::from(v.to_bits()) << 16))).collect();
    Ok((HostWeight::Bf16(Bf16Weight::new(MatrixShape::new(out, inp), values.into())?), real))
}

/// Value of an e4m3fn byte (spec section 4).
pub(crate) fn e4m3(byte: u8) -> f64 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(byte >> 3 & 0xF), f64::from(byte & 7));
    sign * if exponent == 0 { mantissa / 512.0 } else { (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7) }
}

/// Random bytes of the upper binades, with a few subnormals, zeros and largest values among them.
fn e4m3_byte(rng: &mut Rng) -> u8 {
    let byte = match rng.below(64) {
        0 => rng.below(8),
        1 => 0x7E,
        _ => (9 + rng.below(5)) << 3 | rng.below(8),
    };
    byte as u8 | (rng.below(2) as u8) << 7
}

fn fp8_weight(rng: &mut Rng, out: usize, inp: usize, format: ScaleFormat) -> Made {
    let values: Vec<u8> = (0..out * inp).map(|_| e4m3_byte(rng)).collect();
    let blocks = inp.div_ceil(128);
    // The bytes above have a root mean square of about 70.
    let typical = 1.0 / (70.0 * (inp as f32).sqrt());
    let scales: Vec<f32> = (0..out.div_ceil(128) * blocks)
        .map(|_| {
            let scale = typical * rng.uniform(0.5, 2.0);
            match format {
                ScaleFormat::F32 => scale,
                ScaleFormat::Ue8m0 => scale.log2().ceil().exp2(),
            }
        })
        .collect();
    let scale = |i: usize| f64::from(scales[i / inp / 128 * blocks + i % inp / 128]);
    let real = values.iter().enumerate().map(|(i, byte)| e4m3(*byte) * scale(i)).collect();
    let weight = Fp8BlockWeight::new(MatrixShape::new(out, inp), values.into(), scales.clone().into(), format)?;
    Ok((HostWeight::Fp8Block(weight), real))
}

fn int8_weight(rng: &mut Rng, out: usize, inp: usize) -> Made {
    let values: Vec<i8> = (0..out * inp).map(|_| (rng.below(255) as i32 - 127) as i8).collect();
    // Uniform in -127..=127 has a root mean square of 73.
    let scales: Vec<f32> = (0..out).map(|_| rng.uniform(0.5, 1.5) / (73.0 * (inp as f32).sqrt())).collect();
    let real = values.iter().enumerate().map(|(i, v)| f64::from(*v) * f64::from(scales[i / inp])).collect();
    let weight = Int8ChannelWeight::new(MatrixShape::new(out, inp), values.into(), scales.clone().into())?;
    Ok((HostWeight::Int8Channel(weight), real))
}

fn int4_weight(rng: &mut Rng, out: usize, inp: usize) -> Made {
    const GROUP: usize = 32;
    let (row_bytes, groups) = (inp.div_ceil(8) * 4, inp.div_ceil(GROUP));
    // Uniform in -8..=7 has a root mean square of 4.6.
    let scales: Vec<f32> = (0..out * groups).map(|_| rng.uniform(0.5, 1.5) / (4.6 * (inp as f32).sqrt())).collect();
    let mut packed = vec![0u8; out * row_bytes];
    let mut real = Vec::with_capacity(out * inp);
    for row in 0..out {
        for column in 0..inp {
            let value = rng.below(16) as i32 - 8;
            // Eight values of four bits per little-endian word: column 0 in the lowest bits.
            packed[row * row_bytes + column / 2] |= ((value + 8) as u8) << (column % 2 * 4);
            real.push(f64::from(value) * f64::from(scales[row * groups + column / GROUP]));
        }
    }
    let weight = Int4GroupWeight::new(MatrixShape::new(out, inp), GROUP, packed.into(), scales.into())?;
    Ok((HostWeight::Int4Group(weight), real))
}
