//! What all layers of a step share on the device: cos and sin of its positions, and where its sequences lie.

use engine_core::backend::{LayerStep, PAD_SLOT, StepError, StepLayout};

use super::AscendMla;
use crate::device::{AscendBuffer, Device};
use crate::driver::{DataType, View};
use crate::scratch::{AscendStream, PreparedStep, Slot};

impl AscendMla {
    /// cos and sin of the step's positions in f32, `[T, 1, R]` each, the value of a pair twice: looked up once per step.
    pub(super) fn angles(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
    ) -> Result<[View; 2], StepError> {
        self.begin(stream, step);
        let tables = [self.rope.cos.view, self.rope.sin.view];
        let is_new = !stream.step.has_angles;
        let found = look_up(device, stream, step, (tables, [Slot::Cos, Slot::Sin]), is_new)?;
        stream.step.has_angles = true;
        Ok(found.map(|view| view.with_axis(1)))
    }

    /// The same in bf16, `[T, R]` each, as operators take them that give the halves of pairs one after the other.
    pub(super) fn half_angles(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
        tables: [View; 2],
    ) -> Result<[View; 2], StepError> {
        self.begin(stream, step);
        let is_new = !stream.step.has_half_angles;
        let found = look_up(device, stream, step, (tables, [Slot::CosHalves, Slot::SinHalves]), is_new)?;
        stream.step.has_half_angles = true;
        Ok(found)
    }

    /// Slots of all sequences of the step, one after the other, in i32: uploaded once per step.
    pub(super) fn slots(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
    ) -> Result<View, StepError> {
        device.check(stream.queue.check_not_captured("slots of all sequences"))?;
        self.begin(stream, step);
        stream.step.list_slots(step.meta.host());
        let count = stream.step.slots.len();
        let list = stream.scratch(device, Slot::CacheSlots, DataType::I32, [count])?;
        if !stream.step.has_slots {
            let slots = std::mem::take(&mut stream.step.slots);
            let filled = stream.fill(Slot::CacheSlots, bytemuck::cast_slice(&slots));
            stream.step.slots = slots;
            device.check(filled)?;
            stream.step.has_slots = true;
        }
        Ok(list)
    }

    /// The slot of every token of the step in i64, −1 for none: uploaded once per step.
    pub(super) fn token_slots(
        &self,
        device: &Device,
        stream: &mut AscendStream,
        step: LayerStep<'_, AscendBuffer>,
    ) -> Result<View, StepError> {
        self.begin(stream, step);
        let layout = step.meta.host();
        let list = stream.scratch(device, Slot::TokenSlots, DataType::I64, [layout.num_tokens()])?;
        if !stream.step.has_token_slots {
            // Recorded work finds them there: they are uploaded before each replay.
            if !stream.queue.is_captured() {
                stream.step.list_token_slots(layout);
                let slots = std::mem::take(&mut stream.step.token_slots);
                let filled = stream.fill(Slot::TokenSlots, bytemuck::cast_slice(&slots));
                stream.step.token_slots = slots;
                device.check(filled)?;
            }
            stream.step.has_token_slots = true;
        }
        Ok(list)
    }

    fn begin(&self, stream: &mut AscendStream, step: LayerStep<'_, AscendBuffer>) {
        stream.step.begin(step.meta.host(), self.rope.id);
    }
}

/// Rows of two tables at the step's positions, looked up where they are new.
fn look_up(
    device: &Device,
    stream: &mut AscendStream,
    step: LayerStep<'_, AscendBuffer>,
    (tables, slots): ([View; 2], [Slot; 2]),
    is_new: bool,
) -> Result<[View; 2], StepError> {
    let num_tokens = step.meta.host().num_tokens();
    let positions = View::new(step.meta.positions.buffer().0.address(), DataType::I32, [num_tokens]);
    let [table, _] = tables;
    let dims = [num_tokens, table.dim(1)];
    let found = [
        stream.scratch(device, slots[0], table.data_type(), dims)?,
        stream.scratch(device, slots[1], table.data_type(), dims)?,
    ];
    if is_new {
        for (table, found) in tables.into_iter().zip(found) {
            device.check(stream.queue.select_rows(table, positions, found))?;
        }
    }
    Ok(found)
}

impl PreparedStep {
    /// Takes up a step, unless it is the one at hand.
    fn begin(&mut self, layout: &StepLayout, rope: u64) {
        if self.rope == rope && self.layout == *layout {
            return;
        }
        self.layout.clone_from(layout);
        self.rope = rope;
        self.slots.clear();
        (self.has_angles, self.has_half_angles, self.has_slots, self.has_token_slots) = (false, false, false, false);
    }

    /// Whatever step comes next is another one.
    pub(crate) fn forget(&mut self) {
        self.rope = 0;
    }

    /// Lists the slot of every token.
    pub(crate) fn list_token_slots(&mut self, layout: &StepLayout) {
        self.token_slots.clear();
        let slot = |slot: &u32| if *slot == PAD_SLOT { -1 } else { i64::from(*slot) };
        self.token_slots.extend(layout.slot_mapping.iter().map(slot));
    }

    /// Lists the slots of the step at hand.
    fn list_slots(&mut self, layout: &StepLayout) {
        if !self.slots.is_empty() {
            return;
        }
        for seq in 0..layout.num_seqs() {
            let positions = 0..layout.seq_lens[seq] as usize;
            self.slots.extend(positions.map(|position| layout.slot(seq, position) as i32));
        }
    }

    /// Lists sequences for an operator, by their tokens and their lengths.
    pub(crate) fn list_sequences(&mut self, sequences: impl Iterator<Item = (usize, usize)>) {
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
        let mut is_kept = |layout: &StepLayout, rope| {
            step.begin(layout, rope);
            step.list_slots(layout);
            assert_eq!(step.slots, [4, 5, 6, 7, 0]);
            std::mem::replace(&mut step.has_angles, true)
        };
        assert!(!is_kept(&layout, 1) && is_kept(&layout, 1));
        assert!(!is_kept(&layout, 2), "another rope table");
        let next = StepLayout { positions: vec![4, 1], ..layout };
        assert!(!is_kept(&next, 2) && is_kept(&next, 2));
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
