//! What happens to the sequences of an MLA case, step by step.

use engine_core::backend::SequenceStep;

use crate::harness::Rng;

/// A sequence of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) name: &'static str,
    pub(super) steps: &'static [Step],
}

/// Who takes part, and with how many tokens: (sequence, query_len) in batch order, then padding sequences of one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) queries: &'static [(usize, usize)],
    pub(super) padding: usize,
}

const fn step(queries: &'static [(usize, usize)]) -> Step {
    Step { queries, padding: 0 }
}

/// One prompt in one step.
pub(super) const PREFILL: Script = Script { name: "prefill", steps: &[step(&[(0, 13)])] };
/// A prompt, then token by token.
pub(super) const DECODE: Script =
    Script { name: "decode", steps: &[step(&[(0, 6)]), step(&[(0, 1)]), step(&[(0, 1)]), step(&[(0, 1)])] };
/// A prompt in chunks that end inside blocks, then one token.
pub(super) const CHUNKED: Script =
    Script { name: "chunked", steps: &[step(&[(0, 5)]), step(&[(0, 7)]), step(&[(0, 2)]), step(&[(0, 1)])] };
/// Sequences of different lengths, decoding together; the third joins with its prompt.
pub(super) const BATCH: Script = Script {
    name: "batch",
    steps: &[
        step(&[(0, 9), (1, 2)]),
        step(&[(1, 1), (2, 4), (0, 1)]),
        step(&[(2, 1), (0, 1), (1, 1)]),
        step(&[(0, 1), (1, 1)]),
        step(&[(2, 1)]),
    ],
};
/// Several draft tokens per sequence on top of a context.
pub(super) const VERIFY: Script =
    Script { name: "verify", steps: &[step(&[(0, 7), (1, 3)]), step(&[(0, 3), (1, 3)]), step(&[(1, 2), (0, 4)])] };
/// Steps with padding, then one that would see what padding had written.
pub(super) const PADDED: Script = Script {
    name: "padded",
    steps: &[
        step(&[(0, 4), (1, 3)]),
        Step { queries: &[(0, 1), (1, 1)], padding: 2 },
        Step { queries: &[(1, 1)], padding: 3 },
        step(&[(0, 1), (1, 1)]),
    ],
};

/// Sequences of several of the tiles that devices cut positions into, with their last tile in every state.
pub(super) const LONG: Script = Script {
    name: "long",
    steps: &[step(&[(0, 90), (1, 64)]), step(&[(0, 1), (1, 1)]), step(&[(1, 2), (0, 40)]), step(&[(0, 1), (1, 1)])],
};

/// Long and short chunks of sequences side by side, the long one on top of a short context.
pub(super) const LONG_CHUNKS: Script = Script {
    name: "long chunks",
    steps: &[step(&[(0, 17), (1, 20)]), step(&[(2, 1), (1, 150), (0, 3)]), step(&[(0, 1), (1, 1), (2, 1)])],
};

/// Decoding, verification and prompts of new and of long sequences in one step, in every order.
pub(super) const MIXED: Script = Script {
    name: "mixed",
    steps: &[
        step(&[(0, 33), (1, 5), (2, 70)]),
        step(&[(0, 1), (1, 40), (3, 35), (2, 3), (4, 20)]),
        step(&[(3, 1), (4, 64), (0, 2)]),
    ],
};

pub(super) const ALL: [Script; 7] = [PREFILL, DECODE, CHUNKED, BATCH, VERIFY, PADDED, LONG];

impl Script {
    /// Final length of every sequence.
    pub(super) fn lengths(&self) -> Vec<usize> {
        let mut lengths = Vec::new();
        for (seq, query_len) in self.steps.iter().flat_map(|step| step.queries) {
            if lengths.len() <= *seq {
                lengths.resize(seq + 1, 0);
            }
            lengths[*seq] += query_len;
        }
        lengths
    }

    /// Padding sequences of the step with most of them.
    pub(super) fn max_padding(&self) -> usize {
        self.steps.iter().map(|step| step.padding).max().unwrap_or(0)
    }

    /// Positions that all sequences of a step have together, in the step with the fewest of them.
    pub(super) fn min_cached_positions(&self) -> usize {
        let mut lengths = self.lengths();
        lengths.fill(0);
        let positions = self.steps.iter().map(|step| {
            step.queries.iter().for_each(|(seq, query_len)| lengths[*seq] += query_len);
            step.queries.iter().map(|(seq, _)| lengths[*seq]).sum()
        });
        positions.min().unwrap_or(0)
    }

    /// Tokens of the largest step.
    pub(super) fn max_num_tokens(&self) -> usize {
        self.steps.iter().map(Step::num_tokens).max().unwrap_or(0)
    }
}

impl Step {
    /// Tokens that belong to sequences.
    pub(super) fn num_live(&self) -> usize {
        self.queries.iter().map(|(_, query_len)| query_len).sum()
    }

    /// All tokens.
    pub(super) fn num_tokens(&self) -> usize {
        self.num_live() + self.padding
    }
}

/// The pool and who owns which block of it.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) block_size: usize,
    pub(super) num_blocks: usize,
    tables: Vec<Vec<u32>>,
    context_lens: Vec<usize>,
    tokens: Vec<u32>,
}

impl Blocks {
    /// Deals the blocks of a pool to the sequences in random order; one block in the middle stays free, the first and
    /// the last are in use: writes that went astray tend to land there.
    pub(super) fn deal(rng: &mut Rng, script: &Script, block_size: usize) -> Self {
        let lengths = script.lengths();
        let needed: Vec<usize> = lengths.iter().map(|len| len.div_ceil(block_size)).collect();
        let num_blocks = needed.iter().sum::<usize>() + 1;
        let free = if num_blocks > 2 { 1 } else { 0 };
        let mut order = rng.permutation(num_blocks).into_iter().filter(|block| *block != free);
        let tables = needed.iter().map(|count| order.by_ref().take(*count).collect()).collect();
        let tokens = vec![0; lengths.iter().copied().max().unwrap_or(0)];
        Self { block_size, num_blocks, tables, context_lens: vec![0; lengths.len()], tokens }
    }

    /// The step's sequences, each with as many blocks as it has begun.
    pub(super) fn sequences(&self, step: &Step) -> Vec<SequenceStep<'_>> {
        let sequence = |(seq, query_len): &(usize, usize)| {
            let context_len = self.context_lens[*seq];
            let num_blocks = (context_len + query_len).div_ceil(self.block_size);
            let block_table = &self.tables[*seq][..num_blocks];
            SequenceStep { tokens: &self.tokens[..*query_len], context_len, block_table }
        };
        step.queries.iter().map(sequence).collect()
    }

    /// Positions of the step's tokens as (sequence, position).
    pub(super) fn positions(&self, step: &Step) -> Vec<(usize, usize)> {
        let of = |(seq, query_len): &(usize, usize)| {
            let (seq, context_len) = (*seq, self.context_lens[*seq]);
            (context_len..context_len + query_len).map(move |position| (seq, position))
        };
        step.queries.iter().flat_map(of).collect()
    }

    /// Counts the step's tokens as cached.
    pub(super) fn advance(&mut self, step: &Step) {
        for (seq, query_len) in step.queries {
            self.context_lens[*seq] += query_len;
        }
    }
}
