//! Routed and shared experts: tokens sorted by expert, two grouped products, a weighted sum.
//!
//! INT8 experts whose sizes fill whole tiles of NZ go through one operator from their inputs to the codes that the second
//! product takes; all others through a product, SwiGlu and a quantisation of their own.

use engine_core::backend::{ExpertsWeights, FfnWeights, PrepareError, StepError};
use engine_core::quant::{HostWeight, WeightFormat};
use half::bf16;

use crate::device::{Device, Matrix};
use crate::driver::{DataType, FusedGateUp, GroupedProduct, Routed, View};
use crate::ffn::{AscendFfn, common_format};
use crate::linear::{Input, computes, data_type, refused};
use crate::nz::{self, TILE_BYTES, TILE_ROWS};
use crate::scratch::{AscendStream, Slot};

/// Widths that the fused operator takes: K below the first, gate and up together up to the second.
const FUSED_INPUT_END: usize = 65_536;
const MAX_FUSED_WIDTH: usize = 10_240;
/// Experts of one grouped product.
const MAX_GROUPS: usize = 1024;

/// Prepared experts of a layer.
#[derive(Debug)]
pub struct AscendExperts {
    /// `[E, 2 I, H]`: gate, then up; in NZ where `is_fused`.
    gate_up: Grouped,
    /// `[E, H, I]`; in NZ where `is_fused`.
    down: Grouped,
    shared: Option<AscendFfn>,
    /// True where one operator computes gate, up, SwiGlu and its codes.
    is_fused: bool,
}

/// One weight of every expert.
#[derive(Debug)]
struct Grouped {
    /// `[E, N, K]`, or `[E, K, N]` in NZ.
    values: Matrix,
    /// `[E, N]`, of i8 values: f32 beside NZ; otherwise bf16, with which alone the product gives bf16.
    scales: Option<Matrix>,
}

/// E, N and K of one weight of every expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    experts: usize,
    n: usize,
    k: usize,
}

impl Grouped {
    /// `parts` of an expert lie one below the other.
    fn new(
        device: &Device,
        experts: &[FfnWeights],
        parts: impl Fn(&FfnWeights) -> Vec<&HostWeight>,
        is_packed: bool,
    ) -> Result<Self, PrepareError> {
        let format = parts(&experts[0])[0].format();
        let data_type = data_type(device, format)?;
        let Sizes { experts: num_experts, n, k } = sizes(experts, &parts);
        let weights: Vec<&HostWeight> = experts.iter().flat_map(&parts).collect();
        let mut bytes = Vec::new();
        for expert in weights.chunks(weights.len() / num_experts) {
            let rows: Vec<u8> = expert.iter().flat_map(|weight| weight.value_bytes()).copied().collect();
            match is_packed {
                true => nz::pack_transposed(&rows, [n, k], data_type.num_bytes(), &mut bytes),
                false => bytes.extend(rows),
            }
        }
        let values = match is_packed {
            true => device.packed(data_type, [num_experts, k, n], &bytes, "experts")?,
            false => device.tensor(data_type, [num_experts, n, k], &bytes, "experts")?,
        };
        let scales = (format == WeightFormat::Int8Channel).then(|| {
            let scales: Vec<f32> = weights.iter().flat_map(|weight| weight.scales()).copied().collect();
            if is_packed {
                return device.tensor(DataType::F32, [num_experts, n], &scales, "scales of experts");
            }
            let scales: Vec<bf16> = scales.into_iter().map(bf16::from_f32).collect();
            device.tensor(DataType::Bf16, [num_experts, n], &scales, "scales of experts")
        });
        Ok(Self { values, scales: scales.transpose()? })
    }

    fn num_experts(&self) -> usize {
        self.values.view.dim(0)
    }

    fn width(&self) -> usize {
        self.values.view.dim(if self.values.view.is_nz() { 2 } else { 1 })
    }

    /// `[E, K, N]`.
    fn weights(&self) -> View {
        if self.values.view.is_nz() { self.values.view } else { self.values.view.swapped(1, 2) }
    }

    /// `rows` and their scales, which count where the weights are i8.
    fn forward(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        [rows, row_scales]: [View; 2],
        ends: View,
        out: View,
    ) -> Result<(), StepError> {
        let scales = self.scales.as_ref().map(|scales| [scales.view, row_scales]);
        let weights = self.weights();
        device.check(stream.queue.grouped_product(GroupedProduct { rows, weights, scales, ends, out }))
    }
}

/// The router's choice for each token, `[T, K]`: ids in i32, weights in f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) ids: View,
    pub(crate) weights: View,
}

impl AscendExperts {
    pub(crate) fn new(device: &Device, weights: &ExpertsWeights) -> Result<Self, PrepareError> {
        for expert in &weights.routed {
            let format = common_format(device, expert)?;
            if !computes(device, format) {
                return Err(refused(device, format));
            }
            if format != weights.routed[0].gate.format() {
                return Err(device.unsupported(
                    format!("experts in {} and {format}", weights.routed[0].gate.format()),
                    "all experts of a layer are one product",
                    "convert them to one format",
                ));
            }
        }
        let shared = weights.shared.as_ref().map(|ffn| AscendFfn::new(device, ffn)).transpose()?;
        let is_fused =
            is_fused(device, &weights.routed, [sizes(&weights.routed, gate_up), sizes(&weights.routed, down)]);
        Ok(Self {
            gate_up: Grouped::new(device, &weights.routed, gate_up, is_fused)?,
            down: Grouped::new(device, &weights.routed, down, is_fused)?,
            shared,
            is_fused,
        })
    }

    /// `x` and `out` `[T, H]`.
    pub(crate) fn forward(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        x: View,
        choice: Choice,
        out: View,
    ) -> Result<(), StepError> {
        let shared_out = match &self.shared {
            Some(shared) => {
                let shared_out = stream.scratch(device, Slot::Shared, DataType::Bf16, [x.dim(0), x.dim(1)])?;
                shared.forward(device, stream, &mut Input::outer(x), shared_out)?;
                Some(shared_out)
            }
            None => None,
        };
        let routed = self.route(device, stream, x, choice.ids)?;
        let rows_out = stream.scratch(device, Slot::RoutedOut, DataType::Bf16, [routed.rows.dim(0), x.dim(1)])?;
        let hidden = match &self.gate_up.scales {
            Some(scales) if self.is_fused => self.hidden_fused(device, stream, routed, scales.view)?,
            _ => self.hidden(device, stream, routed)?,
        };
        self.down.forward(device, stream, hidden, routed.ends, rows_out)?;
        let pairs = (choice.weights, choice.ids);
        device.check(stream.queue.combine_experts((rows_out, routed.row_of_pair), pairs, shared_out, out))
    }

    /// SwiGlu of gate and up by three operators, or two: `[T K, I]` in bf16, or i8 and scales.
    fn hidden(&self, device: &Device, stream: &mut AscendStream, routed: Routed) -> Result<[View; 2], StepError> {
        let (num_pairs, width) = (routed.rows.dim(0), self.gate_up.width());
        let gate_up = stream.scratch(device, Slot::GateUp, DataType::Bf16, [num_pairs, width])?;
        let hidden = stream.scratch(device, Slot::Hidden, DataType::Bf16, [num_pairs, width / 2])?;
        self.gate_up.forward(device, stream, [routed.rows, routed.scales], routed.ends, gate_up)?;
        device.check(stream.queue.swi_glu(gate_up, hidden))?;
        if self.down.scales.is_none() {
            return Ok([hidden, routed.scales]);
        }
        let [codes, scales] = codes(device, stream, [num_pairs, width / 2])?;
        device.check(stream.queue.quantise(hidden, codes, scales))?;
        Ok([codes, scales])
    }

    /// The same by one operator, `[T K, I]` in i8 and scales.
    fn hidden_fused(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        routed: Routed,
        weight_scales: View,
    ) -> Result<[View; 2], StepError> {
        let out = codes(device, stream, [routed.rows.dim(0), self.gate_up.width() / 2])?;
        device.check(stream.queue.grouped_swi_glu(FusedGateUp {
            rows: [routed.rows, routed.scales],
            weights: [self.gate_up.weights(), weight_scales],
            ends: routed.ends,
            out,
        }))?;
        Ok(out)
    }

    /// Every token once for each of its experts, in the experts' order, quantised where their weights are.
    fn route(&self, device: &Device, stream: &mut AscendStream, x: View, ids: View) -> Result<Routed, StepError> {
        let num_experts = self.gate_up.num_experts();
        let num_pairs = ids.dim(0) * ids.dim(1);
        let data_type = if self.gate_up.scales.is_some() { DataType::I8 } else { DataType::Bf16 };
        let routed = Routed {
            rows: stream.scratch(device, Slot::Routed, data_type, [num_pairs, x.dim(1)])?,
            row_of_pair: stream.scratch(device, Slot::RowOfPair, DataType::I32, [num_pairs])?,
            ends: stream.scratch(device, Slot::ExpertEnds, DataType::I64, [num_experts])?,
            scales: stream.scratch(device, Slot::RoutedScales, DataType::F32, [num_pairs])?,
        };
        device.check(stream.queue.sort_by_expert(x, ids, num_experts, routed))?;
        Ok(routed)
    }
}

/// What is multiplied first, and then.
fn gate_up(ffn: &FfnWeights) -> Vec<&HostWeight> {
    vec![&ffn.gate, &ffn.up]
}

fn down(ffn: &FfnWeights) -> Vec<&HostWeight> {
    vec![&ffn.down]
}

/// Where codes of what an op computes on the way go, `[M, I]`, and their scales.
fn codes(device: &Device, stream: &mut AscendStream, dims: [usize; 2]) -> Result<[View; 2], StepError> {
    Ok([
        stream.scratch(device, Slot::InnerCodes, DataType::I8, dims)?,
        stream.scratch(device, Slot::InnerCodeScales, DataType::F32, [dims[0]])?,
    ])
}

/// Of the weight that `parts` of each expert make up.
fn sizes(experts: &[FfnWeights], parts: impl Fn(&FfnWeights) -> Vec<&HostWeight>) -> Sizes {
    let first = parts(&experts[0]);
    let n = first.iter().map(|weight| weight.shape().out_features).sum();
    Sizes { experts: experts.len(), n, k: first[0].shape().in_features }
}

/// Whether a layer's experts go through the fused operator; says so once, with the reason where not.
fn is_fused(device: &Device, experts: &[FfnWeights], [gate_up, down]: [Sizes; 2]) -> bool {
    if experts[0].gate.format() != WeightFormat::Int8Channel {
        return false;
    }
    let reason = if device.fused.experts {
        not_fusable(gate_up, down)
    } else {
        Some("this CANN lacks aclnnGroupedMatmulSwigluQuantWeightNZ")
    };
    tracing::trace!(device = device.name, ?gate_up, ?down, reason, "INT8 experts");
    reason.is_none()
}

/// Why sizes are not those of the fused operator and of a grouped product in NZ; none where they are.
fn not_fusable(gate_up: Sizes, down: Sizes) -> Option<&'static str> {
    let fills_tiles = |sizes: Sizes| sizes.n.is_multiple_of(TILE_BYTES) && sizes.k.is_multiple_of(TILE_ROWS);
    match () {
        () if !fills_tiles(gate_up) || !fills_tiles(down) => Some("sizes that do not fill tiles of NZ"),
        () if gate_up.k >= FUSED_INPUT_END || down.k >= FUSED_INPUT_END => Some("inputs too wide"),
        () if down.n >= FUSED_INPUT_END => Some("outputs too wide"),
        () if gate_up.n > MAX_FUSED_WIDTH => Some("gate and up too wide"),
        () if gate_up.experts > MAX_GROUPS => Some("too many experts for one product"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_models_are_fused_and_others_are_not() {
        let reason = |experts: usize, hidden: usize, width: usize| {
            not_fusable(Sizes { experts, n: 2 * width, k: hidden }, Sizes { experts, n: hidden, k: width })
        };
        // DeepSeek-V3, Kimi-K2, Moonlight and V2-Lite; the tiny model.
        for (experts, hidden, width) in [(256, 7168, 2048), (384, 7168, 2048), (64, 2048, 1408), (16, 256, 64)] {
            assert_eq!(reason(experts, hidden, width), None, "{experts} {hidden} {width}");
        }
        assert_eq!(reason(1024, 65_504, 5120), None, "the largest");
        for (experts, hidden, width, words) in [
            (8, 96, 40, "tiles"),
            (8, 100, 64, "tiles"),
            (8, 65_536, 64, "inputs"),
            (8, 256, 5136, "gate and up"),
            (1040, 256, 64, "too many experts"),
        ] {
            assert!(reason(experts, hidden, width).is_some_and(|reason| reason.contains(words)), "{hidden} {width}");
        }
    }
}
