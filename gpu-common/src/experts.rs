//! Routed and shared experts: pairs of token and choice, sorted by expert; only chosen experts' weights are read.

use engine_core::backend::{ExpertsWeights, PrepareError, StepError};
use engine_core::quant::{FP8_BLOCK, HostWeight};

use crate::device::Device;
use crate::ffn::GpuFfn;
use crate::product::{ExpertRows, Input, Kernels, Rows};
use crate::runtime::{Arg, GpuRuntime, LaunchShape};
use crate::scratch::{GpuStream, Slot};

/// Pairs that one block sorts (`SEGMENT` in experts.cu).
const SEGMENT: u32 = 1024;

/// Prepared experts of a layer.
#[derive(Debug)]
pub struct GpuExperts<R: GpuRuntime> {
    routed: GpuFfn<R>,
    shared: Option<GpuFfn<R>>,
    num_experts: u32,
    count: R::Kernel,
    plan: R::Kernel,
    combine: R::Kernel,
    gather: R::Kernel,
}

/// The router's choice of a step: addresses of ids and weights `[T, K]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) ids: u64,
    pub(crate) weights: u64,
    pub(crate) top_k: u32,
}

impl<R: GpuRuntime> GpuExperts<R> {
    pub(crate) fn new(device: &Device<R>, weights: &ExpertsWeights) -> Result<Self, PrepareError> {
        let of = |part: fn(&engine_core::backend::FfnWeights) -> &HostWeight| -> Vec<HostWeight> {
            weights.routed.iter().map(|ffn| part(ffn).clone()).collect()
        };
        let routed = GpuFfn::new(device, &of(|ffn| &ffn.gate), &of(|ffn| &ffn.up), &of(|ffn| &ffn.down))?;
        let one = std::slice::from_ref::<HostWeight>;
        let shared = match &weights.shared {
            Some(ffn) => Some(GpuFfn::new(device, one(&ffn.gate), one(&ffn.up), one(&ffn.down))?),
            None => None,
        };
        Ok(Self {
            routed,
            shared,
            num_experts: device.kernel_size(weights.routed.len(), "experts")?,
            count: device.runtime().kernel("experts", "count_experts")?,
            plan: device.runtime().kernel("experts", "plan_experts")?,
            combine: device.runtime().kernel("experts", "combine_experts")?,
            gather: device.runtime().kernel("quant", "gather_codes")?,
        })
    }

    /// `x` as from [`Device::input`], `out [T, H]`.
    pub(crate) fn forward(
        &self,
        (device, kernels): (&Device<R>, &Kernels<R::Kernel>),
        stream: &mut GpuStream<R>,
        x: Input,
        choice: Choice,
        out: u64,
    ) -> Result<(), StepError> {
        let (num_tokens, hidden_size) = (x.num_rows, self.routed.hidden_size());
        let num_pairs = num_tokens * choice.top_k;
        let routed = stream.scratch(device, Slot::Routed, num_pairs as usize * hidden_size as usize * 2)?;
        let rows = self.plan(device, stream, choice, num_pairs)?;
        let input = self.routed.quantised((device, kernels), stream, x)?;
        // Inner rows lie in the order of the sorted pairs, results in the order of tokens and choices.
        let outer = Rows::Experts(ExpertRows { gather: 0, scatter: true, ..rows });
        let (sorted, gather) = match rows.is_wide {
            true => (self.gathered(device, stream, input, (rows.pairs, num_pairs, choice.top_k))?, 0),
            false => (input, choice.top_k),
        };
        let inner = Rows::Experts(ExpertRows { gather, scatter: false, ..rows });
        self.routed.forward((device, kernels), stream, (sorted, num_pairs), routed, [inner, outer])?;
        let shared_out = match &self.shared {
            Some(shared) => {
                let address = stream.scratch(device, Slot::Shared, num_tokens as usize * hidden_size as usize * 2)?;
                let input = match shared.shares_input_with(&self.routed) {
                    true => input,
                    false => shared.quantised((device, kernels), stream, x)?,
                };
                shared.forward((device, kernels), stream, (input, num_tokens), address, [Rows::All; 2])?;
                address
            }
            None => 0,
        };
        let [routed, weights, shared_out, out] = [routed, choice.weights, shared_out, out].map(Arg::Ptr);
        let args = [routed, weights, shared_out, out, Arg::U32(choice.top_k), Arg::U32(hidden_size)];
        device.launch(&mut stream.queue, &self.combine, LaunchShape::linear(num_tokens, device.threads()), &args)
    }

    /// Quantised rows of tokens, one for each sorted pair: an expert's lie side by side.
    fn gathered(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        input: Input,
        (pairs, num_pairs, top_k): (u64, u32, u32),
    ) -> Result<Input, StepError> {
        let num_groups = self.routed.hidden_size().div_ceil(FP8_BLOCK as u32);
        let codes = stream.scratch(device, Slot::SortedCodes, num_pairs as usize * input.stride as usize)?;
        let scales = stream.scratch(device, Slot::SortedCodeScales, num_pairs as usize * num_groups as usize * 4)?;
        let addresses = [input.address, input.scales, pairs, codes, scales].map(Arg::Ptr);
        let [from, from_scales, pairs, to, to_scales] = addresses;
        let [top_k, stride, num_groups] = [top_k, input.stride, num_groups].map(Arg::U32);
        let args = [from, from_scales, pairs, to, to_scales, top_k, stride, num_groups];
        let shape = LaunchShape::linear(num_pairs, device.threads());
        device.launch(&mut stream.queue, &self.gather, shape, &args)?;
        Ok(Input { address: codes, scales, num_rows: num_pairs, stride: input.stride })
    }

    /// Pairs of each expert in each segment; the planning kernel counts a single segment's itself.
    fn counts(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        ids: u64,
        num_pairs: u32,
    ) -> Result<u64, StepError> {
        let num_segments = num_pairs.div_ceil(SEGMENT);
        if num_segments <= 1 {
            return Ok(0);
        }
        let counts = stream.scratch(device, Slot::PairCounts, num_segments as usize * self.num_experts as usize * 4)?;
        let args = [Arg::Ptr(ids), Arg::Ptr(counts), Arg::U32(num_pairs), Arg::U32(self.num_experts)];
        let shape = LaunchShape::linear(num_segments, device.threads()).with_shared(4 * SEGMENT);
        device.launch(&mut stream.queue, &self.count, shape, &args)?;
        Ok(counts)
    }

    /// Sorts the pairs by expert and cuts them into tiles.
    fn plan(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        choice: Choice,
        num_pairs: u32,
    ) -> Result<ExpertRows, StepError> {
        let rows_per_expert = num_pairs.div_ceil(self.num_experts);
        let wide_rows = self.routed.wide_tile_rows(device, num_pairs / choice.top_k, rows_per_expert);
        let tile_rows = wide_rows.unwrap_or_else(|| self.routed.tile_rows(rows_per_expert));
        // Every expert's last tile may be short, but none is empty.
        let num_tiles = num_pairs.min(self.num_experts + num_pairs / tile_rows);
        let pairs = stream.scratch(device, Slot::Pairs, num_pairs as usize * 4)?;
        let tiles = stream.scratch(device, Slot::Tiles, num_tiles as usize * 16)?;
        let counts = self.counts(device, stream, choice.ids, num_pairs)?;
        let [ids, counts, pairs_arg, tiles_arg] = [choice.ids, counts, pairs, tiles].map(Arg::Ptr);
        let [count, experts, rows, max] = [num_pairs, self.num_experts, tile_rows, num_tiles].map(Arg::U32);
        let shared_bytes = 4 * SEGMENT + 2 * (4 * self.num_experts).next_multiple_of(16);
        let shape = LaunchShape::linear(num_pairs.div_ceil(SEGMENT), device.threads()).with_shared(shared_bytes);
        let args = [ids, counts, pairs_arg, tiles_arg, count, experts, rows, max];
        device.launch(&mut stream.queue, &self.plan, shape, &args)?;
        Ok(ExpertRows { tiles, pairs, num_tiles, tile_rows, gather: 0, scatter: false, is_wide: wide_rows.is_some() })
    }
}
