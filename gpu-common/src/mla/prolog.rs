//! First half: queries, and latents into the cache.

use engine_core::backend::{LayerStep, StepError};

use super::{Form, GpuLatentCache, GpuMla, GpuQueries, Projection};
use crate::device::Device;
use crate::matrix::ROW_MULTIPLE;
use crate::product::{Input, Kernels, Output, Rows};
use crate::runtime::{Arg, GpuRuntime, LaunchShape};
use crate::scratch::{GpuStream, Slot};

impl<R: GpuRuntime> GpuMla<R> {
    /// `x` as from [`Device::input`] to `queries` and to the step's slots of `cache`.
    pub(crate) fn prolog(
        &self,
        (device, kernels): (&Device<R>, &Kernels<R::Kernel>),
        stream: &mut GpuStream<R>,
        step: LayerStep<'_, R::Buffer>,
        x: Input,
        (cache, queries): (&GpuLatentCache<R>, &GpuQueries<R>),
    ) -> Result<(), StepError> {
        let runtime = device.runtime();
        let positions = runtime.address(step.meta.positions.buffer());
        let slots = runtime.address(step.meta.slot_mapping.buffer());
        let input = self.kv_a.quantised((device, kernels), stream, x, [Slot::Codes, Slot::CodeScales])?;
        let write_latents = &self.cache_kernels(cache).write_latents;
        self.write_cache((device, write_latents), stream, input, [positions, slots, cache.layer(step.layer)])?;
        let first = match &self.q {
            Projection::Direct(weight) | Projection::LowRank { a: weight, .. } => weight,
        };
        let input = match first.shares_input_with(&self.kv_a) {
            true => input,
            false => first.quantised((device, kernels), stream, x, [Slot::Codes, Slot::CodeScales])?,
        };
        let q = self.project_queries((device, kernels), stream, input)?;
        for run in self.runs(step.meta.host()) {
            let first = u64::from(run.tokens.start);
            let head_width = self.widths.nope + self.widths.rope;
            let q = q + first * 2 * u64::from(self.widths.num_heads * head_width);
            let addresses = [q, positions + 4 * first, queries.of_run(&run)];
            match run.form {
                Form::Absorbed => self.absorb(device, stream, run.num_tokens(), addresses)?,
                Form::Expanded => self.rotate(device, stream, run.num_tokens(), addresses)?,
            }
        }
        Ok(())
    }

    /// Latents of the step's tokens, normalised and rotated, to their slots; `x` as from [`GpuLinear::quantised`].
    ///
    /// [`GpuLinear::quantised`]: crate::linear::GpuLinear::quantised
    fn write_cache(
        &self,
        (device, write_latents): (&Device<R>, &R::Kernel),
        stream: &mut GpuStream<R>,
        x: Input,
        [positions, slots, layer]: [u64; 3],
    ) -> Result<(), StepError> {
        let width = self.widths.rank + self.widths.rope;
        let kv_a = stream.scratch(device, Slot::KvA, x.num_rows as usize * width as usize * 2)?;
        self.kv_a.forward(device, stream, x, self.kv_a.output(kv_a), Rows::All)?;
        let args = [
            Arg::Ptr(kv_a),
            self.kv_a_norm.weight.arg(),
            self.rope.cos.arg(),
            self.rope.sin.arg(),
            Arg::Ptr(positions),
            Arg::Ptr(slots),
            Arg::Ptr(layer),
            Arg::U32(self.widths.rank),
            Arg::U32(self.widths.padded_rank),
            Arg::U32(self.widths.rope),
            Arg::U32(self.widths.latent),
            Arg::F32(self.kv_a_norm.eps),
        ];
        let shape = LaunchShape::linear(x.num_rows, device.threads()).with_shared(device.wave_floats(1));
        device.launch(&mut stream.queue, write_latents, shape, &args)
    }

    /// `[T, N (P + R)]`, before rope; `x` as for `write_cache`.
    fn project_queries(
        &self,
        (device, kernels): (&Device<R>, &Kernels<R::Kernel>),
        stream: &mut GpuStream<R>,
        x: Input,
    ) -> Result<u64, StepError> {
        let num_rows = x.num_rows as usize;
        let width = self.widths.num_heads * (self.widths.nope + self.widths.rope);
        let q = stream.scratch(device, Slot::Query, num_rows * width as usize * 2)?;
        match &self.q {
            Projection::Direct(weight) => {
                weight.forward(device, stream, x, weight.output(q), Rows::All)?;
            }
            Projection::LowRank { a, norm, b } => {
                let rank = a.weight.n;
                let stride = rank.next_multiple_of(ROW_MULTIPLE as u32);
                let low = stream.scratch(device, Slot::QueryLow, num_rows * rank as usize * 2)?;
                let normed = stream.scratch(device, Slot::QueryNormed, num_rows * stride as usize * 2)?;
                a.forward(device, stream, x, a.output(low), Rows::All)?;
                norm.forward(device, stream, (x.num_rows, rank), (low, rank), (normed, stride))?;
                let input = Input { address: normed, scales: 0, num_rows: x.num_rows, stride };
                let input = b.quantised((device, kernels), stream, input, [Slot::InnerCodes, Slot::InnerCodeScales])?;
                b.forward(device, stream, input, b.output(q), Rows::All)?;
            }
        }
        Ok(q)
    }

    /// Rotates the second part of each head and folds W_UK into the first: `q [tokens, N (P + R)]` to `queries`.
    fn absorb(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        num_rows: u32,
        [q, positions, queries]: [u64; 3],
    ) -> Result<(), StepError> {
        let widths = self.widths;
        let stride = widths.num_heads * widths.padded_nope;
        let nope = stream.scratch(device, Slot::QueryNope, num_rows as usize * stride as usize * 2)?;
        let nope_rows = (nope, widths.padded_nope);
        let rope_rows = (queries + 2 * u64::from(widths.padded_rank), widths.latent);
        self.split(device, stream, (q, positions, num_rows), [nope_rows, rope_rows])?;
        let input = Input { address: nope, scales: 0, num_rows, stride };
        let stride = widths.num_heads * widths.latent;
        let output = Output { address: queries, cols: widths.padded_rank, stride, is_f32: false };
        let (input_step, output_step) = (widths.padded_nope, widths.latent);
        let heads = Rows::Batch { count: widths.num_heads, input_step, output_step };
        self.w_uk.forward(device, stream, input, output, heads)
    }

    /// Rotates the second part of each head and leaves the first as it is: `q [tokens, N (P + R)]` to `queries`.
    fn rotate(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        num_rows: u32,
        [q, positions, queries]: [u64; 3],
    ) -> Result<(), StepError> {
        let stride = self.widths.head();
        let rope = queries + 2 * u64::from(self.widths.padded_nope);
        self.split(device, stream, (q, positions, num_rows), [(queries, stride), (rope, stride)])
    }

    /// Both parts of every head to rows of their own: where they begin, and elements from row to row.
    fn split(
        &self,
        device: &Device<R>,
        stream: &mut GpuStream<R>,
        (q, positions, num_rows): (u64, u64, u32),
        [(nope, nope_stride), (rope, rope_stride)]: [(u64, u32); 2],
    ) -> Result<(), StepError> {
        let widths = self.widths;
        let args = [
            Arg::Ptr(q),
            self.rope.cos.arg(),
            self.rope.sin.arg(),
            Arg::Ptr(positions),
            Arg::Ptr(nope),
            Arg::Ptr(rope),
            Arg::U32(widths.num_heads),
            Arg::U32(widths.nope),
            Arg::U32(widths.padded_nope),
            Arg::U32(nope_stride),
            Arg::U32(widths.rope),
            Arg::U32(widths.padded_rope()),
            Arg::U32(rope_stride),
        ];
        // A head is narrow: one wave has a few values per lane.
        let shape = LaunchShape::linear(num_rows * widths.num_heads, device.info().wave_size);
        device.launch(&mut stream.queue, &self.split_queries, shape, &args)
    }
}
