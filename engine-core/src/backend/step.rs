//! What one step consists of: the same description for prefill, chunked prefill, decode and verify.

use super::{Backend, StepError, Tensor};

/// A slot that is not written: that of a padding token, see [`StepMeta::fill_padded`].
pub const PAD_SLOT: u32 = u32::MAX;

/// What [`Backend::argmax`] yields for a row without a highest value: all NaN or −∞. No id.
pub const NO_TOKEN: u32 = u32::MAX;

/// One sequence's share of a step: a token at least.
#[derive(Debug, Clone, Copy)]
pub struct SequenceStep<'a> {
    /// The tokens to run now (`query_len` of them), at positions `context_len..`.
    pub tokens: &'a [u32],
    /// Tokens of this sequence already in the cache.
    pub context_len: usize,
    /// Blocks of the pool that hold positions `0..context_len + query_len`, in order.
    pub block_table: &'a [u32],
}

impl<'a> SequenceStep<'a> {
    /// The same allocation without its contents, free of their lifetime: for lists that are filled step after step.
    pub fn emptied<'b>(mut list: Vec<SequenceStep<'a>>) -> Vec<SequenceStep<'b>> {
        list.clear();
        let nothing = |_: SequenceStep<'a>| SequenceStep { tokens: &[], context_len: 0, block_table: &[] };
        list.into_iter().map(nothing).collect()
    }
}

/// The largest step a runner was built for; workspaces are sized from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// T at most.
    pub max_num_batched_tokens: usize,
    /// Sequences that hold blocks together at most.
    pub max_num_seqs: usize,
    /// Tokens of one sequence at most.
    pub max_model_len: usize,
    /// Slots per cache block.
    pub block_size: usize,
}

impl StepLimits {
    /// Rows of logits computed at once: one per sequence, and enough to score texts at a good pace.
    pub fn max_logit_rows(&self) -> usize {
        self.max_step_seqs().max(self.max_num_batched_tokens.min(64))
    }

    /// S of one step at most: every sequence of a step has a token in it.
    pub fn max_step_seqs(&self) -> usize {
        self.max_num_seqs.min(self.max_num_batched_tokens)
    }

    /// Blocks of the longest sequence.
    pub fn max_blocks_per_seq(&self) -> usize {
        self.max_model_len.div_ceil(self.block_size)
    }
}

/// The host's copy of a step's metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepLayout {
    /// Position of each token, `[T]`.
    pub positions: Vec<u32>,
    /// Cache slot of each token, `[T]`.
    pub slot_mapping: Vec<u32>,
    /// Blocks of each sequence, `[S, max_blocks_per_seq]`, the rest of a row zero.
    pub block_table: Vec<u32>,
    /// `context_len + query_len` of each sequence, `[S]`.
    pub seq_lens: Vec<u32>,
    /// Prefix sums of `query_len`, `[S + 1]`.
    pub query_start_loc: Vec<u32>,
    /// Row length of `block_table`.
    pub max_blocks_per_seq: usize,
    /// Slots per block.
    pub block_size: usize,
    /// Largest `query_len`.
    pub max_query_len: usize,
    /// No `seq_len` is larger: the largest one, or for a padded step the one that it is padded to.
    pub max_seq_len: usize,
}

impl StepLayout {
    /// T.
    pub fn num_tokens(&self) -> usize {
        self.positions.len()
    }

    /// S.
    pub fn num_seqs(&self) -> usize {
        self.seq_lens.len()
    }

    /// Tokens that are written to the cache: all but padding, which comes last.
    pub fn num_written(&self) -> usize {
        self.slot_mapping.iter().position(|slot| *slot == PAD_SLOT).unwrap_or(self.slot_mapping.len())
    }

    /// Blocks of sequence `seq`.
    pub fn blocks(&self, seq: usize) -> &[u32] {
        &self.block_table[seq * self.max_blocks_per_seq..][..self.max_blocks_per_seq]
    }

    /// Token rows of sequence `seq`.
    pub fn query_range(&self, seq: usize) -> std::ops::Range<usize> {
        self.query_start_loc[seq] as usize..self.query_start_loc[seq + 1] as usize
    }

    /// Cache slot of `position` of sequence `seq`.
    pub fn slot(&self, seq: usize, position: usize) -> usize {
        self.blocks(seq)[position / self.block_size] as usize * self.block_size + position % self.block_size
    }

    fn fill(&mut self, sequences: &[SequenceStep<'_>]) {
        for list in [&mut self.positions, &mut self.slot_mapping, &mut self.block_table, &mut self.seq_lens] {
            list.clear();
        }
        self.query_start_loc.clear();
        self.query_start_loc.push(0);
        (self.max_query_len, self.max_seq_len) = (0, 0);
        for (seq, step) in sequences.iter().enumerate() {
            let seq_len = step.context_len + step.tokens.len();
            assert!(step.block_table.len() * self.block_size >= seq_len, "block table shorter than the sequence");
            assert!(step.block_table.len() <= self.max_blocks_per_seq, "sequence longer than max_model_len");
            self.block_table.extend_from_slice(step.block_table);
            self.block_table.resize((seq + 1) * self.max_blocks_per_seq, 0);
            for position in step.context_len..seq_len {
                self.positions.push(position as u32);
                self.slot_mapping.push(self.slot(seq, position) as u32);
            }
            self.seq_lens.push(seq_len as u32);
            self.query_start_loc.push(self.positions.len() as u32);
            self.max_query_len = self.max_query_len.max(step.tokens.len());
            self.max_seq_len = self.max_seq_len.max(seq_len);
        }
    }

    /// Repeats the last sequence, without slots to write, until there are `num_seqs`.
    fn repeat_last(&mut self, num_seqs: usize) {
        let Some(last) = self.num_seqs().checked_sub(1) else { return };
        let (rows, seq_len) = (self.query_range(last), self.seq_lens[last]);
        let blocks = last * self.max_blocks_per_seq..(last + 1) * self.max_blocks_per_seq;
        for _ in self.num_seqs()..num_seqs {
            self.positions.extend_from_within(rows.clone());
            self.slot_mapping.resize(self.positions.len(), PAD_SLOT);
            self.block_table.extend_from_within(blocks.clone());
            self.seq_lens.push(seq_len);
            self.query_start_loc.push(self.positions.len() as u32);
        }
    }
}

/// A step's metadata on the host and on the device, allocated once and refilled for each step. Only what differs from the
/// step before is uploaded: from one decode step to the next, blocks and query lengths mostly stay.
#[derive(Debug)]
pub struct StepMeta<Buf> {
    host: StepLayout,
    /// What the tensors hold.
    uploaded: StepLayout,
    /// `[T, 1]`.
    pub positions: Tensor<Buf, u32>,
    /// `[T, 1]`.
    pub slot_mapping: Tensor<Buf, u32>,
    /// `[S, max_blocks_per_seq]`.
    pub block_table: Tensor<Buf, u32>,
    /// `[S, 1]`.
    pub seq_lens: Tensor<Buf, u32>,
    /// `[S + 1, 1]`.
    pub query_start_loc: Tensor<Buf, u32>,
}

impl<Buf> StepMeta<Buf> {
    /// Allocates for the largest step.
    ///
    /// # Errors
    /// From the backend.
    pub fn alloc<B: Backend<Buffer = Buf>>(backend: &B, limits: &StepLimits) -> Result<Self, StepError> {
        let (tokens, seqs) = (limits.max_num_batched_tokens, limits.max_step_seqs());
        let host = StepLayout {
            max_blocks_per_seq: limits.max_blocks_per_seq(),
            block_size: limits.block_size,
            ..StepLayout::default()
        };
        Ok(Self {
            positions: Tensor::alloc(backend, tokens, 1)?,
            slot_mapping: Tensor::alloc(backend, tokens, 1)?,
            block_table: Tensor::alloc(backend, seqs, host.max_blocks_per_seq)?,
            seq_lens: Tensor::alloc(backend, seqs, 1)?,
            query_start_loc: Tensor::alloc(backend, seqs + 1, 1)?,
            uploaded: StepLayout::default(),
            host,
        })
    }

    /// The same step for another backend.
    pub(super) fn from_layout<B: Backend<Buffer = Buf>>(
        backend: &B,
        stream: &mut B::Stream,
        layout: &StepLayout,
    ) -> Result<Self, StepError> {
        Ok(Self {
            positions: Tensor::from_slice(backend, stream, 1, &layout.positions)?,
            slot_mapping: Tensor::from_slice(backend, stream, 1, &layout.slot_mapping)?,
            block_table: Tensor::from_slice(backend, stream, layout.max_blocks_per_seq, &layout.block_table)?,
            seq_lens: Tensor::from_slice(backend, stream, 1, &layout.seq_lens)?,
            query_start_loc: Tensor::from_slice(backend, stream, 1, &layout.query_start_loc)?,
            uploaded: layout.clone(),
            host: layout.clone(),
        })
    }

    /// The host's copy.
    pub fn host(&self) -> &StepLayout {
        &self.host
    }

    /// Describes `sequences` and queues the upload.
    ///
    /// # Errors
    /// From the backend.
    ///
    /// # Panics
    /// If a block table is too short or the limits are exceeded: bugs of the scheduler.
    pub fn fill<B: Backend<Buffer = Buf>>(
        &mut self,
        backend: &B,
        stream: &mut B::Stream,
        sequences: &[SequenceStep<'_>],
    ) -> Result<(), StepError> {
        self.host.fill(sequences);
        self.write(backend, stream)
    }

    /// Describes `sequences`, and padding up to a step of `num_seqs` sequences of which none is longer than
    /// `max_seq_len`.
    ///
    /// Each padding sequence repeats the last one: its positions, blocks and lengths. So its rows are those of the last
    /// sequence once more, given the same tokens, and choose the same experts. It writes nothing ([`PAD_SLOT`]).
    ///
    /// # Errors
    /// From the backend.
    ///
    /// # Panics
    /// As [`StepMeta::fill`], or if the step is larger than it is to become.
    pub fn fill_padded<B: Backend<Buffer = Buf>>(
        &mut self,
        backend: &B,
        stream: &mut B::Stream,
        sequences: &[SequenceStep<'_>],
        (num_seqs, max_seq_len): (usize, usize),
    ) -> Result<(), StepError> {
        self.host.fill(sequences);
        let (seqs, seq_len) = (self.host.num_seqs(), self.host.max_seq_len);
        assert!(seqs <= num_seqs, "a step of {seqs} sequences cannot be padded to {num_seqs}");
        assert!(seq_len <= max_seq_len, "a step with a sequence of {seq_len} tokens cannot be padded to {max_seq_len}");
        self.host.repeat_last(num_seqs);
        self.host.max_seq_len = max_seq_len;
        self.write(backend, stream)
    }

    fn write<B: Backend<Buffer = Buf>>(&mut self, backend: &B, stream: &mut B::Stream) -> Result<(), StepError> {
        let Self { host, uploaded, .. } = self;
        for (tensor, host, uploaded) in [
            (&mut self.positions, &host.positions, &mut uploaded.positions),
            (&mut self.slot_mapping, &host.slot_mapping, &mut uploaded.slot_mapping),
            (&mut self.block_table, &host.block_table, &mut uploaded.block_table),
            (&mut self.seq_lens, &host.seq_lens, &mut uploaded.seq_lens),
            (&mut self.query_start_loc, &host.query_start_loc, &mut uploaded.query_start_loc),
        ] {
            if host == uploaded {
                continue;
            }
            // A write that fails leaves nobody knows what.
            uploaded.clear();
            tensor.write(backend, stream, host)?;
            uploaded.extend_from_slice(host);
        }
        Ok(())
    }
}

/// One layer's view of a step.
#[derive(Debug)]
pub struct LayerStep<'a, Buf> {
    /// Index into the latent cache: main layers first, MTP modules after them.
    pub layer: usize,
    /// The step.
    pub meta: &'a StepMeta<Buf>,
}

impl<Buf> Clone for LayerStep<'_, Buf> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Buf> Copy for LayerStep<'_, Buf> {}
