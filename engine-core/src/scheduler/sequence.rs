//! The engine's record of a request.

/// Identifies a sequence within an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// Tokens of one request and how far they are computed.
#[derive(Debug)]
pub struct Sequence {
    id: SequenceId,
    tokens: Vec<u32>,
    num_computed: usize,
    block_table: Vec<u32>,
}

impl Sequence {
    /// A sequence that has computed nothing yet. `capacity` tokens of room are reserved, so that decoding does not
    /// allocate.
    pub fn new(id: SequenceId, prompt: &[u32], capacity: usize) -> Self {
        let mut tokens = Vec::with_capacity(capacity.max(prompt.len()));
        tokens.extend_from_slice(prompt);
        Self { id, tokens, num_computed: 0, block_table: Vec::new() }
    }

    /// Its id.
    pub fn id(&self) -> SequenceId {
        self.id
    }

    /// Prompt and generated tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens whose keys are in the cache.
    pub fn num_computed(&self) -> usize {
        self.num_computed
    }

    /// Tokens still to run.
    pub fn num_pending(&self) -> usize {
        self.tokens.len() - self.num_computed
    }

    /// The next `num_tokens` tokens to run.
    pub fn pending(&self, num_tokens: usize) -> &[u32] {
        &self.tokens[self.num_computed..][..num_tokens]
    }

    /// Blocks held, in order of position.
    pub fn block_table(&self) -> &[u32] {
        &self.block_table
    }

    pub(super) fn block_table_mut(&mut self) -> &mut Vec<u32> {
        &mut self.block_table
    }

    /// Records that `num_tokens` more tokens are in the cache.
    pub fn advance(&mut self, num_tokens: usize) {
        self.num_computed += num_tokens;
        debug_assert!(self.num_computed <= self.tokens.len());
    }

    /// Appends a generated token.
    pub fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }

    pub(super) fn restart(&mut self) {
        self.num_computed = 0;
    }
}
