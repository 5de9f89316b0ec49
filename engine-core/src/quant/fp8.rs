//! The e4m3fn number format (spec section 4): 1 sign, 4 exponent (bias 7), 3 mantissa bits, largest 448, no infinity,
//! 0x7F and 0xFF are NaN.

/// Largest finite e4m3 value.
pub const E4M3_MAX: f32 = 448.0;

/// Value of an e4m3fn byte. Exact; NaN bytes give NaN.
pub const fn e4m3_to_f32(byte: u8) -> f32 {
    let sign = (byte as u32 & 0x80) << 24;
    let exponent = (byte as u32 >> 3) & 0xF;
    let mantissa = byte as u32 & 7;
    if exponent == 15 && mantissa == 7 {
        return f32::NAN;
    }
    if exponent == 0 {
        // Subnormal: mantissa · 2^-9.
        let magnitude = mantissa as f32 * (1.0 / 512.0);
        return f32::from_bits(magnitude.to_bits() | sign);
    }
    f32::from_bits(sign | ((exponent + 120) << 23) | (mantissa << 20))
}

/// All 256 values, for table look-ups.
pub static E4M3_TABLE: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = e4m3_to_f32(i as u8);
        i += 1;
    }
    table
};

/// Nearest e4m3fn byte, ties to even, saturating at ±448. NaN gives NaN (0x7F).
pub fn e4m3_from_f32(x: f32) -> u8 {
    if x.is_nan() {
        return 0x7F;
    }
    let sign = ((x.to_bits() >> 24) & 0x80) as u8;
    let a = x.abs();
    if a >= E4M3_MAX {
        return sign | 0x7E;
    }
    if a < 1.0 / 64.0 {
        // Subnormal range: multiples of 2^-9; 8 · 2^-9 is the smallest normal and encodes as 0x08 by itself.
        return sign | (a * 512.0).round_ties_even() as u8;
    }
    // Round the f32 mantissa to 3 bits, ties to even; a carry runs into the exponent, as it should.
    let bits = a.to_bits();
    let rounded = bits + 0x7_FFFF + ((bits >> 20) & 1);
    let exponent = (rounded >> 23) - 120;
    let code = (exponent << 3) | ((rounded >> 20) & 7);
    sign | code.min(0x7E) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_a_round_trip() {
        for byte in 0..=255u8 {
            let value = e4m3_to_f32(byte);
            if value.is_nan() {
                assert!(byte & 0x7F == 0x7F);
            } else {
                assert_eq!(e4m3_from_f32(value), byte, "byte {byte:#x} = {value}");
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_value_with_ties_to_the_even_code() {
        let finite: Vec<(u8, f32)> = (0..0x7Fu8).map(|b| (b, e4m3_to_f32(b))).collect();
        for pair in finite.windows(2) {
            let ((low_code, low), (high_code, high)) = (pair[0], pair[1]);
            let middle = (low + high) / 2.0;
            let even = if low_code % 2 == 0 { low_code } else { high_code };
            assert_eq!(e4m3_from_f32(middle), even, "tie between {low} and {high}");
            assert_eq!(e4m3_from_f32(middle.next_down()), low_code);
            assert_eq!(e4m3_from_f32(middle.next_up()), high_code);
            assert_eq!(e4m3_from_f32(-middle.next_up()), high_code | 0x80);
        }
        assert_eq!(e4m3_from_f32(1e9), 0x7E);
        assert_eq!(e4m3_from_f32(f32::NEG_INFINITY), 0xFE);
    }
}
