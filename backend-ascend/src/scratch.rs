//! A stream: its queue of work, and memory for what lives between the operators of an op.

use engine_core::backend::{StepError, StepLayout};

use crate::device::Device;
use crate::driver::{Allocation, AscendError, DataType, Stream, View};

/// What a piece of scratch memory is for. Each has its own memory, so that views taken for one op stay valid while the op is
/// put together; ops of one stream run one after the other and share all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The op's input in f32.
    Wide,
    /// A result in f32, and one in bf16 that becomes f32.
    WideOut,
    Narrow,
    /// The op's input, quantised, and its scales.
    Codes,
    CodeScales,
    /// What is quantised inside an op: several products may still read the input.
    InnerCodes,
    InnerCodeScales,
    /// Reciprocal root mean squares.
    Rstd,
    /// The gate and up projections, and their product.
    GateUp,
    Hidden,
    /// Queries: low-rank, normalised, whole, the part that is absorbed and what it becomes.
    QueryLow,
    QueryNormed,
    Query,
    QueryNope,
    QueryAbsorbed,
    /// Latents before and after their norm.
    KvA,
    KvC,
    /// Rotated parts of queries and keys, before and after, and of keys alone.
    Rotary,
    Rotated,
    KeyRotated,
    /// cos and sin of the step's positions.
    Cos,
    Sin,
    /// The same in bf16, the values of all pairs twice.
    CosHalves,
    SinHalves,
    /// The slot of every token.
    TokenSlots,
    /// Slots of the step's sequences, their latents and their rotated keys.
    CacheSlots,
    Latents,
    Keys,
    /// Keys of every head, their rotated part, and values.
    ExpandedKeys,
    ExpandedRotary,
    ExpandedValues,
    /// Blocks of a sequence, once for each of its pieces.
    PieceBlocks,
    /// Scores, their rotated part, probabilities in f32 and in bf16.
    Scores,
    RotaryScores,
    Probabilities,
    RoundedProbabilities,
    /// Sums over latents, by token and by head, and after W_UV.
    Attended,
    AttendedByHead,
    Values,
    /// Router logits and scores.
    RouterLogits,
    RouterScores,
    /// Tokens sorted by expert, where they are, how many, what the experts yield.
    Routed,
    RowOfPair,
    ExpertEnds,
    RoutedScales,
    RoutedOut,
    Shared,
    /// Logits without NaN, the highest ones, where they are, and which are none.
    CleanLogits,
    Highest,
    HighestIds,
    IsNone,
}

const NUM_SLOTS: usize = Slot::IsNone as usize + 1;

/// A stream of the Ascend backend.
#[derive(Debug)]
pub struct AscendStream {
    /// Freed before the queue that uses them.
    slots: [Option<(Allocation, usize)>; NUM_SLOTS],
    /// What the tables from [`Slot::Cos`] to [`Slot::CacheSlots`] were made for.
    pub(crate) step: PreparedStep,
    /// How often scratch memory has moved.
    generation: u64,
    /// Recorded work was made ready for the step at hand.
    pub(crate) is_ready: bool,
    pub(crate) queue: Stream,
}

/// A step whose tables are on the device. Layers share them.
#[derive(Debug, Default)]
pub(crate) struct PreparedStep {
    pub(crate) layout: StepLayout,
    /// The rope table that cos and sin were taken from; 0 for none.
    pub(crate) rope: u64,
    /// What is on the device already.
    pub(crate) has_angles: bool,
    pub(crate) has_half_angles: bool,
    pub(crate) has_slots: bool,
    pub(crate) has_token_slots: bool,
    /// Operators were chosen by how many tokens write to the cache.
    pub(crate) counts_written: bool,
    /// Slots of all sequences, one after the other, and those of the tokens.
    pub(crate) slots: Vec<i32>,
    pub(crate) token_slots: Vec<i64>,
    /// Ends of sequences' tokens, and their lengths, as an operator takes them.
    pub(crate) ends: Vec<i64>,
    pub(crate) lengths: Vec<i64>,
}

impl AscendStream {
    pub(crate) fn new(device: &Device) -> Result<Self, StepError> {
        let slots = std::array::from_fn(|_| None);
        let queue = device.stream()?;
        Ok(Self { slots, step: PreparedStep::default(), generation: 0, is_ready: false, queue })
    }

    /// Another number whenever memory that recorded work may name is elsewhere.
    pub(crate) fn generation(&self) -> u64 {
        self.generation + self.queue.generation()
    }

    /// Operators queued on this stream so far.
    pub fn num_operators(&self) -> u64 {
        self.queue.num_operators()
    }

    /// A dense tensor for `slot`, contents unspecified.
    pub(crate) fn scratch<const N: usize>(
        &mut self,
        device: &Device,
        slot: Slot,
        data_type: DataType,
        dims: [usize; N],
    ) -> Result<View, StepError> {
        let num_bytes = dims.iter().product::<usize>() * data_type.num_bytes();
        let held = &mut self.slots[slot as usize];
        let address = match held {
            Some((memory, capacity)) if *capacity >= num_bytes => memory.address(),
            _ => {
                // The old memory goes first, after the work that uses it.
                *held = None;
                self.generation += 1;
                let capacity = grown(num_bytes);
                let memory = device.alloc(capacity, "the workspace of a step")?;
                held.insert((memory, capacity)).0.address()
            }
        };
        Ok(View::new(address, data_type, dims))
    }

    /// Writes host values to the beginning of a slot that [`AscendStream::scratch`] has made large enough.
    pub(crate) fn fill(&mut self, slot: Slot, data: &[u8]) -> Result<(), AscendError> {
        match &self.slots[slot as usize] {
            Some((memory, _)) => self.queue.write(memory, 0, data),
            None => Ok(()),
        }
    }
}

/// Memory for a piece of `num_bytes`, with room for the next steps: what grows with every token of a sequence does not
/// allocate with each. At most a quarter more.
fn grown(num_bytes: usize) -> usize {
    let unit = (num_bytes.checked_next_power_of_two().unwrap_or(num_bytes) / 8).max(1);
    num_bytes.checked_next_multiple_of(unit).unwrap_or(num_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_in_steps() {
        for (num_bytes, capacity) in
            [(0, 0), (1, 1), (5, 5), (16, 16), (17, 20), (1000, 1024), (1025, 1280), (1281, 1536)]
        {
            assert_eq!(grown(num_bytes), capacity, "{num_bytes}");
        }
        assert_eq!(grown(usize::MAX), usize::MAX);
        let sizes: std::collections::BTreeSet<usize> = (1 << 20..1 << 21).step_by(512).map(grown).collect();
        assert!(sizes.len() <= 5, "{sizes:?}");
    }
}
