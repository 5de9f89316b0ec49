//! A stream: its queue of work, and memory for what lives between the kernels of one op.

use engine_core::backend::{Replayed, StepError};

use crate::collective::Member;
use crate::device::{Device, Memory};
use crate::runtime::GpuRuntime;

/// What a piece of scratch memory is for. Each has its own memory, so that addresses taken for one op stay valid while the
/// op is put together; ops of one stream run one after the other and share all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Rows filled up to a whole number of vectors.
    Padded,
    /// The op's input, quantised, and its scales.
    Codes,
    CodeScales,
    /// The same, a row for each pair of token and choice, sorted by expert.
    SortedCodes,
    SortedCodeScales,
    /// What is quantised inside an op: several products may still read the input.
    InnerCodes,
    InnerCodeScales,
    /// The inner result of an FFN.
    Hidden,
    /// Queries: low-rank, normalised, whole, and the part that is absorbed.
    QueryLow,
    QueryNormed,
    Query,
    QueryNope,
    /// Latents before norm and rope.
    KvA,
    /// Sums over latents, before W_UV.
    Attended,
    /// Keys and values of every head, and what they are made of.
    Expanded,
    /// Parts of attention over several blocks.
    PartialSums,
    PartialStats,
    /// Router logits.
    RouterLogits,
    /// Which expert computes what, and what the experts yield.
    PairCounts,
    Pairs,
    Tiles,
    Routed,
    Shared,
    /// What a runtime's own product for many rows needs besides.
    Wide,
    /// The highest logits of segments of rows, in turn, and their weights.
    Choices,
    MoreChoices,
    ChoiceStats,
}

const NUM_SLOTS: usize = Slot::ChoiceStats as usize + 1;

/// Memory that grows to the size of the largest step and then stays.
#[derive(Debug)]
pub(crate) struct Scratch<R: GpuRuntime> {
    slots: [Option<(Memory<R>, usize)>; NUM_SLOTS],
    /// How often a slot was given other memory.
    num_moves: u64,
}

/// Recorded work of a stream, and where its scratch memory lay then.
#[derive(Debug)]
pub struct GpuGraph<R: GpuRuntime> {
    graph: R::Graph,
    num_moves: u64,
    /// Whose collectives may be recorded: ends after the graph.
    _communicator: Option<Member>,
}

/// A stream of a GPU backend.
#[derive(Debug)]
pub struct GpuStream<R: GpuRuntime> {
    pub(crate) queue: R::Stream,
    scratch: Scratch<R>,
}

impl<R: GpuRuntime> GpuStream<R> {
    pub(crate) fn new(device: &Device<R>) -> Result<Self, StepError> {
        let scratch = Scratch { slots: std::array::from_fn(|_| None), num_moves: 0 };
        Ok(Self { queue: device.runtime().stream()?, scratch })
    }

    /// Records what `run` queues.
    pub(crate) fn capture(
        &mut self,
        device: &Device<R>,
        communicator: Option<&Member>,
        run: &mut dyn FnMut(&mut Self) -> Result<(), StepError>,
    ) -> Result<Option<GpuGraph<R>>, StepError> {
        let runtime = device.runtime();
        runtime.begin_capture(&mut self.queue)?;
        let queued = run(self);
        // Ended in any case: a stream that goes on recording runs nothing.
        let graph = runtime.end_capture(&mut self.queue);
        queued?;
        let num_moves = self.scratch.num_moves;
        Ok(graph?.map(|graph| GpuGraph { graph, num_moves, _communicator: communicator.cloned() }))
    }

    /// Queues recorded work, unless scratch memory has moved since.
    pub(crate) fn replay(&mut self, device: &Device<R>, graph: &GpuGraph<R>) -> Result<Replayed, StepError> {
        if graph.num_moves != self.scratch.num_moves {
            return Ok(Replayed::OutOfDate);
        }
        device.runtime().replay(&mut self.queue, &graph.graph)?;
        Ok(Replayed::Queued)
    }

    /// The address of at least `num_bytes` for `slot`, contents unspecified.
    pub(crate) fn scratch(&mut self, device: &Device<R>, slot: Slot, num_bytes: usize) -> Result<u64, StepError> {
        let held = &mut self.scratch.slots[slot as usize];
        if let Some((memory, capacity)) = held
            && *capacity >= num_bytes
        {
            return Ok(memory.address());
        }
        // What is queued may still use the old memory.
        device.runtime().synchronize(&mut self.queue)?;
        *held = None;
        self.scratch.num_moves += 1;
        let memory = device.memory(num_bytes, "the workspace of a step")?;
        let address = memory.address();
        *held = Some((memory, num_bytes));
        Ok(address)
    }
}
