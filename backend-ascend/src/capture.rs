//! Steps that are recorded and replayed.
//!
//! What a step takes from the host is renewed before each replay: lengths, which attention is planned with, and the slots of
//! tokens, which are uploaded. Where attention is not fused, a step lists the slots of every sequence, which have another
//! number each time: such a step is not recorded.

use engine_core::backend::{Replayed, StepError, StepLayout};

use crate::device::Device;
use crate::driver::Graph;
use crate::scratch::{AscendStream, PreparedStep, Slot};

/// Recorded work of a step.
#[derive(Debug)]
pub struct AscendGraph {
    graph: Graph,
    /// The stream's memory that it names.
    generation: u64,
    num_seqs: usize,
    /// Tokens that write to the cache, where operators are chosen by how many they are.
    num_written: Option<usize>,
    takes_token_slots: bool,
}

impl AscendStream {
    /// Records what `run` queues. Scratch memory is there: it has run before.
    pub(crate) fn capture(
        &mut self,
        device: &Device,
        run: &mut dyn FnMut(&mut Self) -> Result<(), StepError>,
    ) -> Result<AscendGraph, StepError> {
        // Tables of the step at hand are made by recorded work too.
        self.step = PreparedStep::default();
        device.check(self.queue.begin_capture())?;
        let queued = run(self);
        let ended = self.queue.end_capture();
        let step = std::mem::take(&mut self.step);
        queued?;
        let graph = ended.map_err(|error| device.lost(&error))?;
        tracing::debug!(device = device.name, updates = graph.num_updates(), "a step was recorded");
        Ok(AscendGraph {
            graph,
            generation: self.generation(),
            num_seqs: step.layout.num_seqs(),
            num_written: step.counts_written.then(|| step.layout.num_written()),
            takes_token_slots: step.has_token_slots,
        })
    }

    /// Makes ready for a replay for this step; one that the recorded work does not fit is not replayed.
    pub(crate) fn prepare_replay(
        &mut self,
        device: &Device,
        graph: &AscendGraph,
        layout: &StepLayout,
    ) -> Result<(), StepError> {
        let fits = graph.generation == self.generation()
            && graph.num_seqs == layout.num_seqs()
            && graph.num_written.is_none_or(|num_written| num_written == layout.num_written());
        if !fits {
            return Ok(());
        }
        // Tables of the step before are overwritten.
        self.step.forget();
        if graph.takes_token_slots {
            self.step.list_token_slots(layout);
            let slots = std::mem::take(&mut self.step.token_slots);
            let filled = self.fill(Slot::TokenSlots, bytemuck::cast_slice(&slots));
            self.step.token_slots = slots;
            device.check(filled)?;
        }
        self.step.list_sequences(layout.seq_lens.iter().map(|len| (1, *len as usize)));
        device.check(self.queue.update(&graph.graph, &self.step.lengths))?;
        // Attention of longer sequences may want a larger workspace than the recorded work names.
        self.is_ready = graph.generation == self.generation();
        Ok(())
    }

    /// Queues recorded work that was made ready.
    pub(crate) fn replay(&mut self, device: &Device, graph: &AscendGraph) -> Result<Replayed, StepError> {
        if !std::mem::take(&mut self.is_ready) {
            return Ok(Replayed::OutOfDate);
        }
        device.check(self.queue.replay(&graph.graph))?;
        Ok(Replayed::Queued)
    }
}
