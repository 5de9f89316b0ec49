//! The contract every device fulfils.
//!
//! One [`Backend`] value is one rank: a device and its place in the group. A backend knows operations, never models:
//! the graph in [`crate::model`] is written once, in terms of this trait.
//!
//! # How the parts fit
//!
//! * **Load time.** Weights are handed over once through `prepare_*` and come back as opaque types. Layout, packing,
//!   choice of kernel and fusion are decided there. Whatever a backend cannot run is refused there, with a reason
//!   ([`PrepareError`]); a running step can fail only for memory, a lost device or a broken communicator
//!   ([`StepError`]).
//! * **Step time.** The runner fills a [`StepMeta`] once per step and calls the graph. Prefill, decode and multi-token
//!   verify are the same two MLA ops; they differ only in `query_start_loc`.
//! * **Tensors.** A [`Tensor`] is a buffer of `capacity` rows of which the first `rows` are live. An op reads and writes
//!   live rows only; rows past `rows` keep their contents (the conformance suite checks it). Ops take their sizes from
//!   the tensors, the layer above guarantees that they agree. Outputs never alias inputs unless the signature says so.
//! * **Order.** Ops of one stream take effect in call order. `read` waits for what was queued before it.
//! * **Who validates.** The layer above. A violated shape is a bug there and may panic; everything that depends on a
//!   checkpoint, a user or a device comes back as an error.
//!
//! # Symbols in the op docs
//!
//! T tokens of the step, S sequences, N heads, H hidden size, P qk_nope_head_dim, R qk_rope_head_dim, V v_head_dim,
//! Lq q_lora_rank, Lkv kv_lora_rank, E routed experts, K experts per token. Matrices are `[out, in]`, `y = x Wᵀ`.

mod cache;
mod capabilities;
mod checked;
mod compare;
mod delegate;
mod error;
mod host_buffer;
mod prepare;
mod rank;
mod step;
mod tensor;
mod top;
mod traced;

pub use cache::{CacheFormat, CacheSpec, UnknownCacheFormat};
pub use capabilities::{Capabilities, Requirement};
pub use checked::{Checked, CheckedTolerance, Mismatch};
pub use compare::Comparison;
#[doc(inline)]
pub use delegate::delegate_backend;
pub use error::{PrepareError, StepError, Unavailable, Unsupported};
pub use host_buffer::HostBuffer;
pub use prepare::{ExpertsWeights, FfnWeights, GateSpec, GateWeights, MlaSpec, MlaWeights, QueryProjection};
pub use rank::Rank;
pub use step::{LayerStep, NO_TOKEN, PAD_SLOT, SequenceStep, StepLayout, StepLimits, StepMeta};
pub use tensor::{DType, Element, Routing, Tensor};
pub use top::TopLogits;
pub use traced::{OpTiming, OpTimings, Traced};

use crate::quant::HostWeight;

/// K of [`Backend::top_logits`] at most.
pub const MAX_TOP_LOGITS: usize = 256;

/// An activation tensor of backend `B`.
pub type ActTensor<B> = Tensor<<B as Backend>::Buffer, <B as Backend>::Act>;

/// A device that runs the operations of the model graph. See the [module](self) for the rules all methods share.
pub trait Backend: Send + Sync + Sized + 'static {
    /// Element of activations: f32 on CPUs and wgpu, bf16 elsewhere.
    type Act: Element;
    /// Untyped device memory.
    type Buffer: Send;
    /// An ordered queue of work, with whatever scratch memory the ops of one step need.
    type Stream: Send;
    /// Prepared token embedding.
    type Embedding: Send + Sync;
    /// Prepared RMS norm.
    type Norm: Send + Sync;
    /// Prepared linear weight.
    type Linear: Send + Sync;
    /// Prepared gated FFN (gate, up and down projections).
    type Ffn: Send + Sync;
    /// Prepared attention of one layer: all projections but `o_proj`.
    type Mla: Send + Sync;
    /// Prepared router of one layer.
    type Gate: Send + Sync;
    /// Prepared routed and shared experts of one layer.
    type Experts: Send + Sync;
    /// What [`Backend::mla_prolog`] hands to [`Backend::mla_attention`]; whether it is absorbed is private.
    type Queries: Send;
    /// Paged pool of latent KV (`kv_c` and `k_pe`) for all layers.
    type LatentCache: Send;
    /// Recorded work; [`Infallible`](std::convert::Infallible) where [`Backend::captures`] is false.
    type Graph: Send;

    /// What this device can run, as plain data.
    fn capabilities(&self) -> &Capabilities;

    /// The place in the group, [`Rank::alone`] by default.
    fn rank(&self) -> &Rank {
        &rank::ALONE
    }

    // ---- device -------------------------------------------------------------------------------------------------

    /// Creates a stream.
    fn stream(&self) -> Result<Self::Stream, StepError>;

    /// Allocates `num_bytes` of device memory, contents unspecified. Called while loading, never in steady decode.
    fn alloc(&self, num_bytes: usize) -> Result<Self::Buffer, StepError>;

    /// Queues a copy of host bytes to `offset` of a buffer; `data` may be reused on return.
    fn write(
        &self,
        stream: &mut Self::Stream,
        buffer: &mut Self::Buffer,
        offset: usize,
        data: &[u8],
    ) -> Result<(), StepError>;

    /// Copies `data.len()` bytes from `offset` of a buffer to the host, after everything queued before.
    fn read(
        &self,
        stream: &mut Self::Stream,
        buffer: &Self::Buffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError>;

    /// Waits for everything queued on the stream.
    fn synchronize(&self, stream: &mut Self::Stream) -> Result<(), StepError>;

    // ---- capture: queueing the work of a whole step at once ---------------------------------------------------------

    /// True where work can be recorded. The runner then pads decode steps to a few sizes and replays their work.
    fn captures(&self) -> bool {
        false
    }

    /// Records the work that `run` queues, instead of running it; `None` where nothing can be recorded.
    ///
    /// `run` calls ops, and nothing that waits, allocates, writes or reads. It has run before, on the same stream with
    /// tensors of the same rows, so that scratch memory is there. What an op queues may depend on nothing that changes
    /// between steps of one size: on shapes and addresses, and of [`StepMeta::host`] on the numbers of tokens and
    /// sequences, `max_query_len` and `max_seq_len`. What tensors hold is read when the work is replayed; a device whose
    /// operators take more than that from the host renews it in [`Backend::prepare_replay`].
    ///
    /// # Errors
    /// Why the work was not recorded. None of it has run and the stream goes on: the caller runs it plainly, and hears
    /// from that if the device is at fault.
    fn capture(
        &self,
        stream: &mut Self::Stream,
        run: &mut dyn FnMut(&mut Self::Stream) -> Result<(), StepError>,
    ) -> Result<Option<Self::Graph>, StepError> {
        let _ = (stream, run);
        Ok(None)
    }

    /// Tells recorded work of the step that its next replay is for. Called before each [`Backend::replay`] of a step that is
    /// not the recorded one; most devices have nothing to do.
    ///
    /// # Errors
    /// [`StepError`] from the device.
    fn prepare_replay(
        &self,
        stream: &mut Self::Stream,
        graph: &Self::Graph,
        layout: &StepLayout,
    ) -> Result<(), StepError> {
        let _ = (stream, graph, layout);
        Ok(())
    }

    /// Queues recorded work, on the stream that it was recorded on and with the tensors that it was recorded with.
    fn replay(&self, stream: &mut Self::Stream, graph: &Self::Graph) -> Result<Replayed, StepError>;

    /// True where [`Backend::top_logits`] is there. Elsewhere whole rows of logits are read for a draw, which costs
    /// nothing where the host's memory is the device's.
    fn finds_top_logits(&self) -> bool {
        false
    }

    // ---- load time: may refuse with a reason ----------------------------------------------------------------------

    /// Takes the embedding table `[vocab, H]`.
    fn prepare_embedding(&self, table: HostWeight) -> Result<Self::Embedding, PrepareError>;

    /// Takes an RMS norm: its weight and epsilon.
    fn prepare_norm(&self, weight: &[f32], eps: f32) -> Result<Self::Norm, PrepareError>;

    /// Takes a linear weight `[out, in]`.
    fn prepare_linear(&self, weight: HostWeight) -> Result<Self::Linear, PrepareError>;

    /// Takes a gated FFN.
    fn prepare_ffn(&self, weights: FfnWeights) -> Result<Self::Ffn, PrepareError>;

    /// Takes a layer's attention.
    fn prepare_mla(&self, spec: &MlaSpec, weights: MlaWeights) -> Result<Self::Mla, PrepareError>;

    /// Takes a layer's router.
    fn prepare_gate(&self, spec: &GateSpec, weights: GateWeights) -> Result<Self::Gate, PrepareError>;

    /// Takes a layer's routed and shared experts.
    fn prepare_experts(&self, weights: ExpertsWeights) -> Result<Self::Experts, PrepareError>;

    /// Allocates the paged pool of latent KV. Refuses formats that [`Capabilities::cache_formats`] does not list.
    fn latent_cache(&self, spec: &CacheSpec) -> Result<Self::LatentCache, PrepareError>;

    /// Allocates the queries of one step of at most `max_num_tokens` tokens.
    fn queries(&self, spec: &MlaSpec, max_num_tokens: usize) -> Result<Self::Queries, PrepareError>;

    // ---- step time, required ----------------------------------------------------------------------------------------

    /// Looks up token embeddings.
    ///
    /// **Shapes** `tokens [T, 1]`, `out [T, H]`. Ids are below the vocabulary size (the engine checks).
    /// **Numerics** exact copy, then the rounding of `Act`.
    /// **May fuse** nothing.
    fn embed(
        &self,
        stream: &mut Self::Stream,
        table: &Self::Embedding,
        tokens: &Tensor<Self::Buffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError>;

    /// `out = x · (mean(x²) + eps)^(−1/2) · weight` per row (spec section 3).
    ///
    /// **Shapes** `x [T, D]`, `out [T, D]`.
    /// **Numerics** statistics and product in f32; rounded to `Act` once, or once before and once after the product
    /// with the weight (both occur in the reference implementations).
    /// **May fuse** with a preceding [`Backend::add`], see [`Backend::add_rms_norm`].
    fn rms_norm(
        &self,
        stream: &mut Self::Stream,
        norm: &Self::Norm,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError>;

    /// `out += x`.
    ///
    /// **Shapes** `x [T, D]`, `out [T, D]`.
    /// **Numerics** sum in f32, rounded to `Act`.
    /// **May fuse** see [`Backend::add_rms_norm`].
    fn add(&self, stream: &mut Self::Stream, x: &ActTensor<Self>, out: &mut ActTensor<Self>) -> Result<(), StepError>;

    /// Puts two rows side by side: `out[t] = [a[t], b[t]]`.
    ///
    /// **Shapes** `a [T, D1]`, `b [T, D2]`, `out [T, D1 + D2]`.
    /// **Numerics** exact copy.
    /// **May fuse** with the projection that reads it.
    fn concat(
        &self,
        stream: &mut Self::Stream,
        a: &ActTensor<Self>,
        b: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError>;

    /// Selects rows: `out[i] = x[rows[i]]`.
    ///
    /// **Shapes** `x [T, D]`, `rows [M, 1]` with values below T, `out [M, D]`.
    /// **Numerics** exact copy.
    /// **May fuse** with the projection that reads it.
    fn gather_rows(
        &self,
        stream: &mut Self::Stream,
        x: &ActTensor<Self>,
        rows: &Tensor<Self::Buffer, u32>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError>;

    /// `out = x Wᵀ`.
    ///
    /// **Shapes** `W [O, I]`, `x [T, I]`, `out [T, O]`.
    /// **Numerics** f32 accumulation (i32 for INT8 × INT8). Activations may be quantised by the weight's
    /// [`activation_scheme`](crate::quant::HostWeight::activation_scheme); a backend states whether it does. FP8 × FP8
    /// sums each 128-wide block in f32 before scaling (spec section 4).
    /// **May fuse** activation quantisation.
    fn linear(
        &self,
        stream: &mut Self::Stream,
        weight: &Self::Linear,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError>;

    /// The head: as [`Backend::linear`], with f32 results.
    ///
    /// **Shapes** `W [vocab, H]`, `x [M, H]`, `out [M, vocab]`.
    /// **Numerics** f32 accumulation and result; activations are not quantised.
    /// **May fuse** the selection of rows before it.
    fn logits(
        &self,
        stream: &mut Self::Stream,
        head: &Self::Linear,
        x: &ActTensor<Self>,
        out: &mut Tensor<Self::Buffer, f32>,
    ) -> Result<(), StepError>;

    /// The id of the highest logit of each row, the lowest id of equals.
    ///
    /// Ids from `num_ids` on do not take part: a model may have more rows in its head than tokens (spec section 8). A
    /// NaN is never highest; a row of NaN and −∞ alone yields [`NO_TOKEN`].
    ///
    /// **Shapes** `logits [M, vocab]`, `out [M, 1]`, `num_ids` at most vocab.
    /// **Numerics** exact. Values compare as numbers do: −0 equals 0, +∞ is the highest. Subnormals may count as 0. A
    /// device whose comparisons do not know NaN or ∞ compares the bits instead.
    /// **May fuse** with [`Backend::logits`] before it, which must still write its result.
    fn argmax(
        &self,
        stream: &mut Self::Stream,
        logits: &Tensor<Self::Buffer, f32>,
        num_ids: usize,
        out: &mut Tensor<Self::Buffer, u32>,
    ) -> Result<(), StepError>;

    /// The K highest logits of each row, and the weight of the whole row at a temperature: what a draw needs to know.
    ///
    /// Ids from `num_ids` on do not take part. Of equal logits those with the lowest ids are taken. NaN and −∞ are never
    /// taken; a row with fewer others has [`NO_TOKEN`] in the places left.
    ///
    /// **Shapes** `logits [M, vocab]`, `inverse_temperatures [M, 1]`, positive; `out [M, 2 K + 1]` as [`TopLogits`] says, K
    /// from 1 to [`MAX_TOP_LOGITS`]; `num_ids` at most vocab.
    /// **Numerics** the choice is exact, as in [`Backend::argmax`]; weights and their sum in f32.
    /// **May fuse** with [`Backend::logits`] before it, which must still write its result.
    ///
    /// # Panics
    /// Where [`Backend::finds_top_logits`] is false.
    fn top_logits(
        &self,
        stream: &mut Self::Stream,
        logits: &Tensor<Self::Buffer, f32>,
        inverse_temperatures: &Tensor<Self::Buffer, f32>,
        num_ids: usize,
        out: &mut Tensor<Self::Buffer, u32>,
    ) -> Result<(), StepError> {
        let _ = (stream, logits, inverse_temperatures, num_ids, out);
        panic!("{} does not find top logits", self.capabilities().backend);
    }

    /// `out = W_down (silu(W_gate x) ⊙ W_up x)`.
    ///
    /// **Shapes** `x [T, H]`, `out [T, H]`.
    /// **Numerics** silu and product in f32, rounded to `Act` before `W_down`; linears as in [`Backend::linear`].
    /// **May fuse** everything.
    fn ffn(
        &self,
        stream: &mut Self::Stream,
        weights: &Self::Ffn,
        x: &ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError>;

    /// First half of MLA (spec 3.2): queries from `x`, and this step's latent KV into the cache.
    ///
    /// Queries: `q = W_qb · RMSNorm(W_qa x)` or `W_q x`, viewed `[N, P + R]`; rope on the last R of each head.
    /// Keys: `a = W_kva x`; `kv_c = RMSNorm(a[..Lkv])`, `k_pe = rope(a[Lkv..])` (not normalised); both go to
    /// `slot_mapping[t]` of the step's layer. [`PAD_SLOT`] is not written.
    ///
    /// **Shapes** `x [T, H]`; slots are indices into the pool, `block · block_size + offset`.
    /// **Numerics** norms, rope and absorption accumulate in f32. Rope pairs are interleaved (spec 3.3); a backend may
    /// keep another order inside `queries` and `cache` as long as both agree.
    /// **May fuse** everything, including the absorption `q_nope · W_UK` of the absorbed form.
    fn mla_prolog(
        &self,
        stream: &mut Self::Stream,
        mla: &Self::Mla,
        step: LayerStep<'_, Self::Buffer>,
        io: MlaPrologIo<'_, Self>,
    ) -> Result<(), StepError>;

    /// Second half of MLA: causal attention over the paged latent cache, including the value up-projection W_UV.
    ///
    /// Query t of sequence s at position p attends to the positions 0..=p of its sequence, found through
    /// `block_table[s]`.
    ///
    /// **Shapes** `out [T, N · V]`.
    /// **Numerics** scores, softmax and sums in f32. Absorbed and non-absorbed forms agree up to rounding.
    /// **May fuse** everything up to, and excluding, `o_proj`.
    fn mla_attention(
        &self,
        stream: &mut Self::Stream,
        mla: &Self::Mla,
        step: LayerStep<'_, Self::Buffer>,
        queries: &Self::Queries,
        cache: &Self::LatentCache,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError>;

    /// The router (spec 3.1): which K experts each token goes to, and with what weight.
    ///
    /// **Shapes** `x [T, H]`, `routing.ids [T, K]`, `routing.weights [T, K]`; the order within a row is free.
    /// **Numerics** router projection, scores and weights in f32 whatever `Act` is. Rejected groups are masked with
    /// −∞; the bias takes part in the selection only; on ties the lowest expert wins.
    /// **May fuse** everything.
    fn moe_gate(
        &self,
        stream: &mut Self::Stream,
        gate: &Self::Gate,
        x: &ActTensor<Self>,
        routing: &mut Routing<Self::Buffer>,
    ) -> Result<(), StepError>;

    /// `out = Σ_k weight_k · FFN_{id_k}(x) + FFN_shared(x)`.
    ///
    /// **Shapes** `x [T, H]`, routing as from [`Backend::moe_gate`], `out [T, H]`.
    /// **Numerics** each expert as in [`Backend::ffn`]; the weighted sum in f32, in an order that does not depend on
    /// the other tokens of the step.
    /// **May fuse** permutation, grouped GEMM, combine, and the exchange of expert parallelism.
    fn moe_experts(
        &self,
        stream: &mut Self::Stream,
        experts: &Self::Experts,
        x: &ActTensor<Self>,
        routing: &Routing<Self::Buffer>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError>;

    // ---- step time, derived: override to fuse -------------------------------------------------------------------------

    /// `x = Σ_ranks x`: what every rank of the group brought, added up, in the place of its own. Not called alone.
    ///
    /// **Shapes** `x [T, D]`, the same on every rank.
    /// **Numerics** added in f32 or better, rounded to `Act` once at least; the same bits on every rank, since each goes on
    /// with its own copy and all must choose the same experts. The reference adds in f64, rank by rank.
    /// **May fuse** with a following [`Backend::add_rms_norm`].
    ///
    /// The default body goes through [`Rank::all_reduce`]: it waits for the device and allocates. Devices that reach each
    /// other queue the sum on the stream.
    fn all_reduce(&self, stream: &mut Self::Stream, x: &mut ActTensor<Self>) -> Result<(), StepError> {
        let mut values = Vec::new();
        x.read(self, stream, &mut values)?;
        let mut sums: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
        self.rank().all_reduce(&mut sums)?;
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value = Element::from_f32(sum));
        x.write(self, stream, &values)
    }

    /// `residual += delta; out = rms_norm(residual)`.
    ///
    /// **Shapes** all `[T, H]`.
    /// **Numerics** as [`Backend::add`] then [`Backend::rms_norm`]; a fused body may keep the sum in f32 for the norm.
    /// **May fuse** both.
    fn add_rms_norm(
        &self,
        stream: &mut Self::Stream,
        norm: &Self::Norm,
        delta: &ActTensor<Self>,
        residual: &mut ActTensor<Self>,
        out: &mut ActTensor<Self>,
    ) -> Result<(), StepError> {
        self.add(stream, delta, residual)?;
        self.rms_norm(stream, norm, residual, out)
    }
}

/// What became of [`Backend::replay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// The work is queued.
    Queued,
    /// Nothing is queued: memory that the work uses has moved since it was recorded.
    OutOfDate,
}

/// What [`Backend::mla_prolog`] reads and writes.
pub struct MlaPrologIo<'a, B: Backend> {
    /// Normalised input, `[T, H]`.
    pub x: &'a ActTensor<B>,
    /// Receives `kv_c` and `k_pe` of the step's tokens.
    pub cache: &'a mut B::LatentCache,
    /// Receives the step's queries.
    pub queries: &'a mut B::Queries,
}

impl<'a, W: Backend> MlaPrologIo<'a, W> {
    /// The same for the backend that `W` wraps.
    pub fn for_backend<B>(self) -> MlaPrologIo<'a, B>
    where
        B: Backend<Act = W::Act, Buffer = W::Buffer, Queries = W::Queries, LatentCache = W::LatentCache>,
    {
        MlaPrologIo { x: self.x, cache: self.cache, queries: self.queries }
    }
}

impl<B: Backend> std::fmt::Debug for MlaPrologIo<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MlaPrologIo").field("rows", &self.x.rows()).finish_non_exhaustive()
    }
}
