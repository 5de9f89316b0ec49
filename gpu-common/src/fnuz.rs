//! e4m3fn weights for devices whose FP8 is e4m3fnuz (AMD's CDNA 3).
//!
//! The exponent's bias is 8 in place of 7, so the same bits are half the value, which scales twice as large make up for:
//! both steps are exact. Three codes of 256 are not that simple: 0x80 is -0 there and NaN here, so it becomes +0; 0x7F and
//! 0xFF are NaN there and ±240 here, so a weight that holds them is refused.

use engine_core::quant::{Fp8BlockWeight, WeightError};

/// What scales are multiplied by.
pub(crate) const SCALE: f32 = 2.0;

/// Codes that are looked at together.
const PIECE_BYTES: usize = 4096;

/// Encodes e4m3fn codes that are numbers anew.
pub(crate) fn encode(codes: &mut [u8]) {
    for code in codes {
        if *code == 0x80 {
            *code = 0;
        }
    }
}

/// Refuses codes that are no numbers.
///
/// # Errors
/// [`WeightError::NotFinite`] naming the first one's place.
pub(crate) fn check(weight: &Fp8BlockWeight) -> Result<(), WeightError> {
    // Whole pieces without a branch in them: every byte of a checkpoint comes by here.
    let is_nan = |code: &u8| code & 0x7f == 0x7f;
    let has_nan = |piece: &[u8]| piece.iter().fold(false, |found, code| found | is_nan(code));
    if !weight.values().chunks(PIECE_BYTES).any(has_nan) {
        return Ok(());
    }
    let Some(index) = weight.values().iter().position(is_nan) else { return Ok(()) };
    let in_features = weight.shape().in_features;
    let (row, column) = (index / in_features, index % in_features);
    Err(WeightError::NotFinite { tensor: "weight".into(), row, column, value: f32::NAN })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use engine_core::quant::fp8::e4m3_to_f32;
    use engine_core::quant::{MatrixShape, ScaleFormat};

    use super::*;

    /// By the format's definition: 1 sign, 4 exponent (bias 8) and 3 mantissa bits; 0x80 is the only NaN.
    fn e4m3fnuz_to_f32(code: u8) -> f32 {
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
        let magnitude = match exponent {
            0 => mantissa / 8.0 * 2f32.powi(-7),
            _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 8),
        };
        match code {
            0x80 => f32::NAN,
            _ if code > 0x80 => -magnitude,
            _ => magnitude,
        }
    }

    #[test]
    fn every_code_that_is_a_number_keeps_its_value() {
        for code in 0..=255u8 {
            let value = e4m3_to_f32(code);
            let mut encoded = [code];
            encode(&mut encoded);
            let found = e4m3fnuz_to_f32(encoded[0]) * SCALE;
            assert!(value.is_nan() || found == value, "{code:#04x}: {value} became {found}");
        }
        assert_eq!((e4m3fnuz_to_f32(0x7f), e4m3fnuz_to_f32(0x01)), (240.0, 2f32.powi(-10)), "the format's range");
    }

    #[test]
    fn codes_that_are_no_numbers_are_refused_by_their_place() {
        for code in [0x7f, 0xff] {
            let mut codes = vec![0x80; 2 * 200];
            let weight = |codes: &[u8]| {
                let (shape, scales) = (MatrixShape::new(2, 200), vec![1.0; 2].into());
                Fp8BlockWeight::new(shape, codes.to_vec().into(), scales, ScaleFormat::F32).unwrap()
            };
            check(&weight(&codes)).unwrap();
            codes[203] = code;
            let error = check(&weight(&codes)).unwrap_err().named("gate_proj").to_string();
            assert!(error.starts_with("gate_proj: value NaN at row 1, column 3 "), "{error}");
        }
    }
}
