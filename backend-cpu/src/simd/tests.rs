use engine_core::quant::fp8::e4m3_to_f32;

use super::*;

/// Applies one decoding to one chunk.
enum Decode {
    E4m3([u8; LANES]),
    Bf16([u16; LANES]),
    I8([i8; LANES]),
    Int4([u8; LANES / 2]),
    Sum(Chunk),
    Sum4([Chunk; 4]),
    HasNan(Vec<[u8; LANES]>),
}

impl Kernel for Decode {
    type Output = Chunk;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Chunk {
        let mut out = [0.0; LANES];
        let vector = match self {
            Decode::E4m3(from) => simd.e4m3_div_256(&from),
            Decode::Bf16(from) => simd.bf16(&from),
            Decode::I8(from) => simd.i8(&from),
            Decode::Int4(from) => simd.int4(&from),
            Decode::Sum(from) => simd.splat(simd.sum(simd.load(&from))),
            Decode::HasNan(from) => simd.splat(f32::from(u8::from(simd.has_e4m3_nan(&from)))),
            Decode::Sum4(from) => {
                out[..4].copy_from_slice(&simd.sum4(from.map(|chunk| simd.load(&chunk))));
                return out;
            }
        };
        simd.store(vector, &mut out);
        out
    }
}

fn levels() -> impl Iterator<Item = (SimdLevel, Isa)> {
    SimdLevel::available().filter_map(|level| Some((level, Isa::new(level)?)))
}

#[test]
fn every_e4m3_byte_is_exact() {
    for (level, isa) in levels() {
        for first in (0..256).step_by(LANES) {
            let bytes = std::array::from_fn(|i| (first + i) as u8);
            for (byte, found) in bytes.into_iter().zip(isa.run(Decode::E4m3(bytes))) {
                let expected = match byte {
                    0x7F => 480.0,
                    0xFF => -480.0,
                    _ => e4m3_to_f32(byte),
                } / 256.0;
                assert_eq!(found.to_bits(), expected.to_bits(), "{level}: {byte:#x} became {found}, not {expected}");
            }
        }
    }
}

#[test]
fn a_nan_code_is_found_wherever_it_is() {
    let numbers: Vec<[u8; LANES]> =
        (0..7).map(|c| std::array::from_fn(|i| [0x7E, 0xFE, 0x3F, 0x80][(c + i) % 4])).collect();
    for (level, isa) in levels() {
        assert_eq!(isa.run(Decode::HasNan(numbers.clone()))[0], 0.0, "{level}");
        for (position, code) in (0..7 * LANES).flat_map(|position| [(position, 0x7F), (position, 0xFF)]) {
            let mut bytes = numbers.clone();
            bytes[position / LANES][position % LANES] = code;
            assert_eq!(isa.run(Decode::HasNan(bytes))[0], 1.0, "{level}: {code:#x} at {position}");
        }
    }
}

#[test]
fn every_bf16_i8_and_int4_value_is_exact() {
    for (level, isa) in levels() {
        for first in (0..=u16::MAX).step_by(LANES) {
            let bits = std::array::from_fn(|i| first + i as u16);
            for (bits, found) in bits.into_iter().zip(isa.run(Decode::Bf16(bits))) {
                assert_eq!(found.to_bits(), u32::from(bits) << 16, "{level}: bf16 {bits:#x}");
            }
        }
        for first in (-128..128).step_by(LANES) {
            let values = std::array::from_fn(|i| (first + i as i32) as i8);
            assert_eq!(isa.run(Decode::I8(values)), values.map(f32::from), "{level}");
        }
        for first in (0..256).step_by(LANES / 2) {
            let bytes = std::array::from_fn(|i| (first + i) as u8);
            for (i, found) in isa.run(Decode::Int4(bytes)).into_iter().enumerate() {
                let nibble = (bytes[i / 2] >> (4 * (i % 2))) & 0xF;
                assert_eq!(found, f32::from(nibble) - 8.0, "{level}: lane {i} of {bytes:?}");
            }
        }
    }
}

#[test]
fn lanes_are_added_in_the_documented_order() {
    // Values of very different size: every other order rounds differently.
    let lanes: Chunk = std::array::from_fn(|i| [1e8, 1.0, -3e7, 0.37][i % 4] * (1.0 + i as f32 / 7.0));
    let mut expected = lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            expected[i] += expected[i + half];
        }
    }
    for (level, isa) in levels() {
        assert_eq!(isa.run(Decode::Sum(lanes))[0].to_bits(), expected[0].to_bits(), "{level}");
        // Powers of two scale without rounding.
        let factors = [1.0, -2.0, 4.0, 0.5];
        let sums = isa.run(Decode::Sum4(factors.map(|factor| lanes.map(|lane| lane * factor))));
        assert_eq!(sums[..4], factors.map(|factor| expected[0] * factor), "{level}");
    }
}

#[test]
fn levels_are_ordered_and_the_best_one_is_chosen() {
    assert!(SimdLevel::ALL.is_sorted());
    assert_eq!(SimdLevel::available().next(), Some(SimdLevel::Portable));
    assert_eq!(SimdLevel::available().max(), Some(SimdLevel::detect()));
}
