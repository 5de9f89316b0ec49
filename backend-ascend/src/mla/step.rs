//! What all layers of a step share on the device: cos and sin of its positions, and where its sequences lie.

use engine_core::backend::{LayerStep, StepError, StepLayout};

use super::AscendMla;
use super::tables::RopeMemory;
use crate::device::{AscendBuffer, Device};
use crate::driver::{DataType, View};
use crate::scratch::{AscendStream, PreparedStep, Slot};

impl AscendMla {
    /// cos and sin of the step's positions, `[T, 1, R]` each: looked up once per step.
    pub(super) fn angles(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
    ) -> Result<[View; 2], StepError> {
        let layout = step.meta.host();
        let RopeMemory { cos, sin, id } = &*self.rope;
        let dims = [layout.num_tokens(), self.dims.qk_rope_head_dim];
        let is_new = stream.step.begin(layout, *id);
        let looked_up = [
            stream.scratch(device, Slot::Cos, DataType::F32, dims)?,
            stream.scratch(device, Slot::Sin, DataType::F32, dims)?,
        ];
        if is_new {
            let positions = View::new(step.meta.positions.buffer().0.address(), DataType::I32, [dims[0]]);
            let found = stream.queue.select_rows(cos.view, positions, looked_up[0]);
            let found = found.and_then(|()| stream.queue.select_rows(sin.view, positions, looked_up[1]));
            if found.is_err() {
                stream.step.forget();
            }
            device.check(found)?;
        }
        Ok(looked_up.map(|view| view.with_axis(1)))
    }

    /// Slots of all sequences of the step, one after the other, in i32: uploaded once per step.
    pub(super) fn slots(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        layout: &StepLayout,
    ) -> Result<View, StepError> {
        let is_new = stream.step.list_slots(layout);
        let count = stream.step.slots.len();
        let list = stream.scratch(device, Slot::CacheSlots, DataType::I32, [count])?;
        if is_new {
            let slots = std::mem::take(&mut stream.step.slots);
            let filled = stream.fill(Slot::CacheSlots, bytemuck::cast_slice(&slots));
            stream.step.slots = slots;
            if filled.is_err() {
                stream.step.forget();
            }
            device.check(filled)?;
        }
        Ok(list)
    }
}

impl PreparedStep {
    /// Takes up a step; false where it is the one at hand.
    fn begin(&mut self, layout: &StepLayout, rope: u64) -> bool {
        if self.rope == rope && self.layout == *layout {
            return false;
        }
        self.layout.clone_from(layout);
        (self.rope, self.has_slots) = (rope, false);
        true
    }

    /// Lists sequences for an operator, by their tokens and their lengths.
    pub(super) fn list_sequences(&mut self, sequences: impl Iterator<Item = (usize, usize)>) {
        self.ends.clear();
        self.lengths.clear();
        let mut end = 0;
        for (num_tokens, length) in sequences {
            end += num_tokens as i64;
            self.ends.push(end);
            self.lengths.push(length as i64);
        }
    }

    /// The same, with the lengths added up.
    pub(super) fn list_length_ends(&mut self, sequences: impl Iterator<Item = (usize, usize)>) {
        self.list_sequences(sequences);
        let mut end = 0;
        for length in &mut self.lengths {
            end += *length;
            *length = end;
        }
    }

    /// Lists the slots of the step at hand; false where they are listed.
    fn list_slots(&mut self, layout: &StepLayout) -> bool {
        if std::mem::replace(&mut self.has_slots, true) {
            return false;
        }
        self.slots.clear();
        for seq in 0..layout.num_seqs() {
            let positions = 0..layout.seq_lens[seq] as usize;
            self.slots.extend(positions.map(|position| layout.slot(seq, position) as i32));
        }
        true
    }

    /// Nothing on the device is known any more.
    fn forget(&mut self) {
        self.rope = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_prepared_once() {
        let layout = StepLayout {
            positions: vec![3, 0],
            slot_mapping: vec![7, 0],
            block_table: vec![1, 0],
            seq_lens: vec![4, 1],
            query_start_loc: vec![0, 1, 2],
            max_blocks_per_seq: 1,
            block_size: 4,
            max_query_len: 1,
            max_seq_len: 4,
        };
        let mut step = PreparedStep::default();
        assert!(step.begin(&layout, 1) && step.list_slots(&layout));
        assert!(!step.begin(&layout, 1) && !step.list_slots(&layout));
        assert_eq!(step.slots, [4, 5, 6, 7, 0]);
        assert!(step.begin(&layout, 2), "another rope table");
        assert!(step.list_slots(&layout));
        let next = StepLayout { positions: vec![4, 1], ..layout };
        assert!(step.begin(&next, 2));
        step.forget();
        assert!(step.begin(&next, 2));
    }
    #[test]
    fn sequences_are_listed_as_operators_take_them() {
        let mut step = PreparedStep::default();
        let sequences = [(2, 5), (1, 1), (3, 9)];
        step.list_sequences(sequences.into_iter());
        assert_eq!((step.ends.as_slice(), step.lengths.as_slice()), ([2, 3, 6].as_slice(), [5, 1, 9].as_slice()));
        step.list_length_ends(sequences.into_iter());
        assert_eq!((step.ends.as_slice(), step.lengths.as_slice()), ([2, 3, 6].as_slice(), [5, 6, 15].as_slice()));
    }
}
