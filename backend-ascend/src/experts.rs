//! Routed and shared experts: tokens sorted by expert, two grouped products, a weighted sum.

use engine_core::backend::{ExpertsWeights, FfnWeights, PrepareError, StepError};
use engine_core::quant::{HostWeight, WeightFormat};
use half::bf16;

use crate::device::{Device, Matrix};
use crate::driver::{DataType, GroupedProduct, Routed, View};
use crate::ffn::{AscendFfn, common_format};
use crate::linear::{Input, computes, data_type, refused};
use crate::scratch::{AscendStream, Slot};

/// Prepared experts of a layer.
#[derive(Debug)]
pub struct AscendExperts {
    /// `[E, 2 I, H]`: gate, then up.
    gate_up: Grouped,
    /// `[E, H, I]`.
    down: Grouped,
    shared: Option<AscendFfn>,
}

/// One weight of every expert: `[E, N, K]`, and scales `[E, N]` of i8 ones. The grouped product gives bf16 with scales in
/// bf16 only.
#[derive(Debug)]
struct Grouped {
    values: Matrix,
    scales: Option<Matrix>,
}

impl Grouped {
    /// `parts` of an expert lie one below the other.
    fn new(
        device: &Device,
        experts: &[FfnWeights],
        parts: impl Fn(&FfnWeights) -> Vec<&HostWeight>,
    ) -> Result<Self, PrepareError> {
        let weights: Vec<&HostWeight> = experts.iter().flat_map(parts).collect();
        let (format, shape) = (weights[0].format(), weights[0].shape());
        let data_type = data_type(device, format)?;
        let rows: usize = weights.iter().map(|weight| weight.shape().out_features).sum();
        let dims = [experts.len(), rows / experts.len(), shape.in_features];
        let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.value_bytes()).copied().collect();
        let values = device.tensor(data_type, dims, &bytes, "experts")?;
        let scales = (format == WeightFormat::Int8Channel).then(|| {
            let scales = weights.iter().flat_map(|weight| weight.scales());
            let scales: Vec<bf16> = scales.copied().map(bf16::from_f32).collect();
            device.tensor(DataType::Bf16, [dims[0], dims[1]], &scales, "scales of experts")
        });
        Ok(Self { values, scales: scales.transpose()? })
    }

    fn width(&self) -> usize {
        self.values.view.dim(1)
    }

    /// `rows` and their scales, which count where the weights are i8.
    fn forward(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        (rows, row_scales): (View, View),
        ends: View,
        out: View,
    ) -> Result<(), StepError> {
        let scales = self.scales.as_ref().map(|scales| [scales.view, row_scales]);
        let weights = self.values.view.swapped(1, 2);
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
        Ok(Self {
            gate_up: Grouped::new(device, &weights.routed, |ffn| vec![&ffn.gate, &ffn.up])?,
            down: Grouped::new(device, &weights.routed, |ffn| vec![&ffn.down])?,
            shared,
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
        let num_pairs = routed.rows.dim(0);
        let width = self.gate_up.width();
        let gate_up = stream.scratch(device, Slot::GateUp, DataType::Bf16, [num_pairs, width])?;
        let hidden = stream.scratch(device, Slot::Hidden, DataType::Bf16, [num_pairs, width / 2])?;
        let rows_out = stream.scratch(device, Slot::RoutedOut, DataType::Bf16, [num_pairs, x.dim(1)])?;
        self.gate_up.forward(device, stream, (routed.rows, routed.scales), routed.ends, gate_up)?;
        device.check(stream.queue.swi_glu(gate_up, hidden))?;
        let hidden = match self.down.scales {
            Some(_) => {
                let codes = stream.scratch(device, Slot::InnerCodes, DataType::I8, [num_pairs, width / 2])?;
                let scales = stream.scratch(device, Slot::InnerCodeScales, DataType::F32, [num_pairs])?;
                device.check(stream.queue.quantise(hidden, codes, scales))?;
                (codes, scales)
            }
            None => (hidden, routed.scales),
        };
        self.down.forward(device, stream, hidden, routed.ends, rows_out)?;
        let pairs = (choice.weights, choice.ids);
        device.check(stream.queue.combine_experts((rows_out, routed.row_of_pair), pairs, shared_out, out))
    }

    /// Every token once for each of its experts, in the experts' order, quantised where their weights are.
    fn route(&self, device: &Device, stream: &mut AscendStream, x: View, ids: View) -> Result<Routed, StepError> {
        let num_experts = self.gate_up.values.view.dim(0);
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
