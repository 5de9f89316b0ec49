//! Single ops at the shapes of DeepSeek-V3 and Moonlight.
//!
//! What an op reads is taken in turns from copies that together exceed a card's cache, as the layers of a model do.

mod attention;
mod top_logits;

use engine_core::Error;
use engine_core::backend::{ActTensor, Backend, Element, ExpertsWeights, FfnWeights, Routing, Tensor};
use engine_core::quant::{Bf16Weight, FP8_BLOCK, Fp8BlockWeight, HostWeight, MatrixShape, ScaleFormat};
use half::bf16;

use super::report::{Cost, Row};
use super::timing::seconds_per_run;
use super::{BenchOptions, Scale};
use crate::harness::Rng;

/// Several times the cache of any card.
const COPIES_BYTES: f64 = 400e6;
const MAX_COPIES: usize = 32;

/// A product to measure.
#[derive(Debug, Clone, Copy)]
struct LinearShape {
    name: &'static str,
    out: usize,
    inp: usize,
    is_bf16: bool,
}

const fn fp8(name: &'static str, out: usize, inp: usize) -> LinearShape {
    LinearShape { name, out, inp, is_bf16: false }
}

/// Projections of DeepSeek-V3 (q_a and kv_a as one, as they can be fused), then of Moonlight.
const LINEARS: [LinearShape; 8] = [
    fp8("v3 q_a + kv_a", 2112, 7168),
    fp8("v3 q_b", 24_576, 1536),
    fp8("v3 o", 7168, 16_384),
    fp8("moonlight q", 3072, 2048),
    fp8("moonlight kv_a", 576, 2048),
    fp8("moonlight o", 2048, 2048),
    LinearShape { name: "moonlight head", out: 163_840, inp: 2048, is_bf16: true },
    LinearShape { name: "v3 q_a + kv_a", out: 2112, inp: 7168, is_bf16: true },
];
const TINY_LINEARS: [LinearShape; 2] =
    [fp8("tiny", 192, 256), LinearShape { name: "tiny", out: 64, inp: 96, is_bf16: true }];

/// Experts to measure: routed ones only, chosen at random.
#[derive(Debug, Clone, Copy)]
struct ExpertsShape {
    name: &'static str,
    hidden: usize,
    width: usize,
    num_experts: usize,
    top_k: usize,
}

const EXPERTS: [ExpertsShape; 2] = [
    ExpertsShape { name: "v3 experts", hidden: 7168, width: 2048, num_experts: 256, top_k: 8 },
    ExpertsShape { name: "moonlight experts", hidden: 2048, width: 1408, num_experts: 64, top_k: 6 },
];
const TINY_EXPERTS: [ExpertsShape; 1] =
    [ExpertsShape { name: "tiny experts", hidden: 128, width: 96, num_experts: 8, top_k: 2 }];

/// Measures ops on a device. `tell` hears what is under way.
///
/// # Errors
/// As the backend reports them.
pub fn kernels<B: Backend>(backend: &B, options: &BenchOptions, mut tell: impl FnMut(&str)) -> Result<Vec<Row>, Error> {
    let (linears, experts, rows): (&[LinearShape], &[ExpertsShape], &[usize]) = match options.scale {
        Scale::Full => (&LINEARS, &EXPERTS, &[1, 16, 32, 128, 4096]),
        Scale::Quick => (&LINEARS, &EXPERTS, &[1, 32, 4096]),
        Scale::Tiny => (&TINY_LINEARS, &TINY_EXPERTS, &[1, 3]),
    };
    let mut bench = KernelBench { backend, stream: backend.stream()?, options, random: Rng::from_name("kernels") };
    let mut measured = Vec::new();
    for shape in linears {
        tell(&format!("linear, {}", shape.name));
        measured.extend(bench.linear(shape, rows)?);
    }
    for shape in experts {
        tell(&format!("experts, {}", shape.name));
        measured.extend(bench.experts(shape, rows)?);
    }
    tell("attention");
    measured.extend(bench.attention()?);
    tell("top logits");
    measured.extend(bench.top_logits()?);
    Ok(measured)
}

struct KernelBench<'a, B: Backend> {
    backend: &'a B,
    stream: B::Stream,
    options: &'a BenchOptions,
    random: Rng,
}

/// Copies of something of this size that exceed a cache together.
pub(super) fn num_copies(bytes: f64) -> usize {
    ((COPIES_BYTES / bytes).ceil() as usize).clamp(1, MAX_COPIES)
}

/// Bytes without a pattern, cheaply.
fn scrambled(len: usize) -> impl Iterator<Item = u32> {
    (0..len as u32).map(|i| (i ^ i >> 7).wrapping_mul(2_654_435_761) >> 16)
}

/// Every e4m3 code but the two NaNs.
pub(super) fn codes(len: usize) -> Vec<u8> {
    scrambled(len).map(|bits| bits as u8).map(|b| if b & 0x7f == 0x7f { b - 1 } else { b }).collect()
}

/// Name, outputs and inputs of the FP8 linears that are measured.
pub(super) fn fp8_linears(scale: Scale) -> impl Iterator<Item = (&'static str, usize, usize)> {
    let linears: &[LinearShape] = match scale {
        Scale::Full | Scale::Quick => &LINEARS,
        Scale::Tiny => &TINY_LINEARS,
    };
    linears.iter().filter(|shape| !shape.is_bf16).map(|shape| (shape.name, shape.out, shape.inp))
}

fn fp8_weight(out: usize, inp: usize) -> Result<HostWeight, Error> {
    let num_scales = out.div_ceil(FP8_BLOCK) * inp.div_ceil(FP8_BLOCK);
    let scales = vec![1.0 / (128.0 * (inp as f32).sqrt()); num_scales];
    let weight =
        Fp8BlockWeight::new(MatrixShape::new(out, inp), codes(out * inp).into(), scales.into(), ScaleFormat::F32)?;
    Ok(HostWeight::Fp8Block(weight))
}

fn bf16_weight(out: usize, inp: usize) -> Result<HostWeight, Error> {
    let scale = 1.0 / (32_768.0 * (inp as f32).sqrt());
    let values: Vec<bf16> =
        scrambled(out * inp).map(|bits| bf16::from_f32((f32::from(bits as u16) - 32_768.0) * scale)).collect();
    Ok(HostWeight::Bf16(Bf16Weight::new(MatrixShape::new(out, inp), values.into())?))
}

impl<B: Backend> KernelBench<'_, B> {
    fn activations(&mut self, rows: usize, cols: usize) -> Result<ActTensor<B>, Error> {
        let values: Vec<B::Act> = (0..rows * cols).map(|_| B::Act::from_f32(self.random.normal())).collect();
        Ok(Tensor::from_slice(self.backend, &mut self.stream, cols, &values)?)
    }

    fn runs(&self, copies: usize) -> usize {
        match self.options.scale {
            Scale::Full | Scale::Quick => copies.max(16),
            Scale::Tiny => 2,
        }
    }

    fn linear(&mut self, shape: &LinearShape, all_rows: &[usize]) -> Result<Vec<Row>, Error> {
        let LinearShape { name, out, inp, is_bf16 } = *shape;
        let host = if is_bf16 { bf16_weight(out, inp)? } else { fp8_weight(out, inp)? };
        let weight_bytes = host.num_bytes() as f64;
        let copies = (0..num_copies(weight_bytes)).map(|_| self.backend.prepare_linear(host.clone()));
        let copies: Vec<B::Linear> = copies.collect::<Result<_, _>>()?;
        let what = format!("linear {} {name} {out}x{inp}", if is_bf16 { "bf16" } else { "fp8" });
        let mut measured = Vec::new();
        // A head has as many rows as there are sequences.
        for &rows in all_rows.iter().filter(|rows| out * **rows <= 1 << 27) {
            let x = self.activations(rows, inp)?;
            let mut y: ActTensor<B> = Tensor::alloc(self.backend, rows, out)?;
            let (backend, runs) = (self.backend, self.runs(copies.len()));
            let seconds = seconds_per_run(backend, &mut self.stream, runs, |stream, run| {
                backend.linear(stream, &copies[run % copies.len()], &x, &mut y)
            })?;
            let flop = 2.0 * (rows * out * inp) as f64;
            let bytes = weight_bytes + (rows * (inp + out) * size_of::<B::Act>()) as f64;
            let cost = match is_bf16 {
                true => Cost { bytes, fp8_flop: 0.0, bf16_flop: flop },
                false => Cost { bytes, fp8_flop: flop, bf16_flop: 0.0 },
            };
            measured.push(Row::new(&what, (rows, 0), seconds, cost, self.options.limits));
        }
        Ok(measured)
    }

    fn experts(&mut self, shape: &ExpertsShape, all_rows: &[usize]) -> Result<Vec<Row>, Error> {
        let ExpertsShape { name, hidden, width, num_experts, top_k } = *shape;
        let ffn = FfnWeights {
            gate: fp8_weight(width, hidden)?,
            up: fp8_weight(width, hidden)?,
            down: fp8_weight(hidden, width)?,
        };
        let expert_bytes = (ffn.gate.num_bytes() + ffn.up.num_bytes() + ffn.down.num_bytes()) as f64;
        // Each run chooses other experts: one layer of them exceeds any cache.
        let weights = ExpertsWeights { routed: vec![ffn; num_experts], shared: None };
        let experts = self.backend.prepare_experts(weights)?;
        let what = format!("experts fp8 {name} {num_experts}x3x{width}x{hidden} top {top_k}");
        let mut measured = Vec::new();
        for &rows in all_rows {
            let runs = self.runs(1);
            let (mut routings, mut num_read) = (Vec::new(), 0);
            for _ in 0..runs {
                let (routing, distinct) = self.routing(rows, num_experts, top_k)?;
                routings.push(routing);
                num_read += distinct;
            }
            let x = self.activations(rows, hidden)?;
            let mut y: ActTensor<B> = Tensor::alloc(self.backend, rows, hidden)?;
            let backend = self.backend;
            let seconds = seconds_per_run(backend, &mut self.stream, runs, |stream, run| {
                backend.moe_experts(stream, &experts, &x, &routings[run], &mut y)
            })?;
            let bytes = expert_bytes * num_read as f64 / runs as f64 + (2 * rows * hidden * size_of::<B::Act>()) as f64;
            let fp8_flop = 2.0 * 3.0 * (rows * top_k * width * hidden) as f64;
            let cost = Cost { bytes, fp8_flop, bf16_flop: 0.0 };
            measured.push(Row::new(&what, (rows, 0), seconds, cost, self.options.limits));
        }
        Ok(measured)
    }

    /// Experts chosen at random, and how many different ones.
    fn routing(&mut self, rows: usize, num_experts: usize, top_k: usize) -> Result<(Routing<B::Buffer>, usize), Error> {
        let mut is_read = vec![false; num_experts];
        let mut ids = Vec::with_capacity(rows * top_k);
        for _ in 0..rows {
            for id in self.random.permutation(num_experts).into_iter().take(top_k) {
                is_read[id as usize] = true;
                ids.push(id);
            }
        }
        let weights = vec![1.0 / top_k as f32; rows * top_k];
        let mut routing = Routing::alloc(self.backend, rows, top_k)?;
        routing.ids.write(self.backend, &mut self.stream, &ids)?;
        routing.weights.write(self.backend, &mut self.stream, &weights)?;
        Ok((routing, is_read.into_iter().filter(|read| *read).count()))
    }
}
