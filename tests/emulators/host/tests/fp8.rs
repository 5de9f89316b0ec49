//! Both kinds of FP8: what kernels read and write against the formats' definitions.
#![allow(clippy::unwrap_used)]

use gpu_common::{Arg, GpuRuntime, LaunchShape};
use gpu_host::{HostMemory, HostOptions, HostRuntime, HostStream, Profile};

/// Columns of a scale.
const BLOCK: usize = 128;

/// e4m3fn, or e4m3fnuz.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Fn,
    Fnuz,
}

impl Kind {
    const ALL: [(Self, Profile); 2] = [(Self::Fn, Profile::Nvidia), (Self::Fnuz, Profile::CdnaFnuz)];

    /// Largest value that activations are quantised to.
    fn max(self) -> f64 {
        match self {
            Self::Fn => 448.0,
            Self::Fnuz => 224.0,
        }
    }

    /// What a code stands for; `None` is NaN.
    fn value(self, code: u8) -> Option<f64> {
        let (bias, nan) = match self {
            Self::Fn => (7, code & 0x7f == 0x7f),
            Self::Fnuz => (8, code == 0x80),
        };
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
        let magnitude = match exponent {
            0 => mantissa / 8.0 * 2f64.powi(1 - bias),
            _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - bias),
        };
        (!nan).then_some(if code & 0x80 == 0 { magnitude } else { -magnitude })
    }

    /// The nearest code within the range of activations, the even one of two.
    fn code(self, value: f64) -> u8 {
        let distance = |code: u8| (self.value(code).unwrap() - value.abs()).abs();
        let positive = (0..0x7f).filter(|code| self.value(*code).unwrap() <= self.max());
        let nearest =
            positive.min_by(|a, b| distance(*a).total_cmp(&distance(*b)).then((a & 1).cmp(&(b & 1)))).unwrap();
        let is_negative = value.is_sign_negative() && !(self == Self::Fnuz && nearest == 0);
        nearest | u8::from(is_negative) << 7
    }
}

fn runtime(profile: Profile) -> HostRuntime {
    HostRuntime::new(HostOptions { profile, ..HostOptions::default() })
}

fn uploaded(runtime: &HostRuntime, bytes: &[u8]) -> HostMemory {
    let memory = runtime.alloc(bytes.len(), "operand").unwrap();
    runtime.upload(&mut HostStream, &memory, 0, bytes).unwrap();
    memory
}

fn launch(runtime: &HostRuntime, family: &'static str, name: &str, shape: LaunchShape, args: &[Arg]) {
    let kernel = runtime.kernel(family, name).unwrap();
    runtime.launch(&mut HostStream, &kernel, shape, args).unwrap();
}

fn downloaded(runtime: &HostRuntime, memory: &HostMemory, num_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; num_bytes];
    runtime.download(&mut HostStream, memory, 0, &mut bytes).unwrap();
    bytes
}

fn bf16_bytes(values: &[f64]) -> Vec<u8> {
    let upper_half = |value: &f64| {
        let bits = (*value as f32).to_bits();
        assert_eq!(bits & 0xffff, 0, "{value} is no bf16");
        ((bits >> 16) as u16).to_le_bytes()
    };
    values.iter().flat_map(upper_half).collect()
}

#[test]
fn every_code_is_read_as_its_kind_says() {
    for (kind, profile) in Kind::ALL {
        let runtime = runtime(profile);
        let codes: Vec<u8> = (0..=u8::MAX).collect();
        let (token, table) = (uploaded(&runtime, &0_u32.to_le_bytes()), uploaded(&runtime, &codes));
        let scales = uploaded(&runtime, &[1_f32.to_le_bytes(); 2].concat());
        let out = runtime.alloc(2 * codes.len(), "out").unwrap();
        let mut args: Vec<Arg> = [&token, &table, &scales, &out].map(|memory| Arg::Ptr(memory.address())).into();
        args.extend([1, codes.len() as u32, codes.len() as u32, 0].map(Arg::U32));
        launch(&runtime, "elementwise", "embed_fp8", LaunchShape::linear(1, 64), &args);
        let read = downloaded(&runtime, &out, 2 * codes.len());
        for (code, bytes) in codes.iter().zip(read.as_chunks::<2>().0) {
            let found = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            match kind.value(*code) {
                None => assert!(found.is_nan(), "{kind:?} {code:#x}: {found}"),
                Some(value) => assert_eq!(f64::from(found), value, "{kind:?} {code:#x}"),
            }
        }
    }
}

/// All values of the format within the range of activations, those half way between two of them, and half of the smallest.
fn probes(kind: Kind) -> Vec<f64> {
    let values: Vec<f64> =
        (0..=0x7e).map(|code| kind.value(code).unwrap()).filter(|value| *value <= kind.max()).collect();
    let between = values.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    let tiny = [values[1] / 4.0, values[1] * 0.75];
    let magnitudes: Vec<f64> = values.iter().copied().chain(between).chain(tiny).collect();
    magnitudes.iter().flat_map(|value| [*value, -value]).collect()
}

#[test]
fn activations_become_the_nearest_code() {
    for (kind, profile) in Kind::ALL {
        let runtime = runtime(profile);
        // The first column of each block has the largest value, so that every scale is 1.
        let mut x = Vec::new();
        for block in probes(kind).chunks(BLOCK - 1) {
            x.push(kind.max());
            x.extend_from_slice(block);
            x.resize(x.len().next_multiple_of(BLOCK), 0.0);
        }
        let num_blocks = x.len() / BLOCK;
        let input = uploaded(&runtime, &bf16_bytes(&x));
        let (codes, scales) =
            (runtime.alloc(x.len(), "codes").unwrap(), runtime.alloc(4 * num_blocks, "scales").unwrap());
        let mut args: Vec<Arg> = [&input, &codes, &scales].map(|memory| Arg::Ptr(memory.address())).into();
        args.extend([1, x.len() as u32, x.len() as u32, x.len() as u32, 0].map(Arg::U32));
        let shape = LaunchShape::linear(num_blocks as u32, profile.wave_size());
        launch(&runtime, "quant", "quantise_fp8", shape, &args);
        assert_eq!(downloaded(&runtime, &scales, 4 * num_blocks), 1_f32.to_le_bytes().repeat(num_blocks), "{kind:?}");
        for (value, code) in x.iter().zip(downloaded(&runtime, &codes, x.len())) {
            assert_eq!(code, kind.code(*value), "{kind:?} {value}");
            assert!(kind.value(code).is_some(), "{kind:?} {value} became NaN");
        }
    }
}

/// The two kinds differ by a factor of two and in nothing else that weights and activations use.
#[test]
fn the_same_bits_are_half_the_value() {
    for code in (0..=u8::MAX).filter(|code| ![0x7f, 0x80, 0xff].contains(code)) {
        assert_eq!(Kind::Fn.value(code).unwrap(), 2.0 * Kind::Fnuz.value(code).unwrap(), "{code:#x}");
    }
}
