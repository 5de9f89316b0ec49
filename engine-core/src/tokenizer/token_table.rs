//! The bytes of every token, side by side, so that turning ids into text looks nothing up by string.

/// Bytes and flags per token id.
#[derive(Debug, Default)]
pub(super) struct TokenTable {
    /// The bytes of all tokens, in id order.
    bytes: Vec<u8>,
    /// Where the bytes of id `i` start; one entry more than there are ids.
    starts: Vec<usize>,
    kinds: Vec<TokenKind>,
}

/// What an id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// No token has this id.
    Unknown,
    /// Ordinary text, or an added token that is not flagged special (`<think>`, tool markers).
    Text,
    /// Flagged special: left out when special tokens are skipped.
    Special,
}

impl TokenTable {
    /// `tokens` yields id 0, 1, 2, …: `None` where no token has the id, else (spelling in `tokenizer.json`, special).
    pub(super) fn new(tokens: impl Iterator<Item = Option<(String, bool)>>) -> Self {
        let bytes_of_char = byte_level_alphabet();
        let mut table = Self { bytes: Vec::new(), starts: vec![0], kinds: Vec::new() };
        for token in tokens {
            table.kinds.push(match &token {
                None => TokenKind::Unknown,
                Some((_, false)) => TokenKind::Text,
                Some((_, true)) => TokenKind::Special,
            });
            if let Some((spelling, _)) = token {
                push_bytes(&mut table.bytes, &spelling, &bytes_of_char);
            }
            table.starts.push(table.bytes.len());
        }
        table
    }

    /// One past the highest id that has a token.
    pub(super) fn num_ids(&self) -> usize {
        self.kinds.len()
    }

    pub(super) fn kind(&self, id: u32) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Unknown)
    }

    /// The bytes of `id`; empty for an id without a token.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        match self.kind(id) {
            TokenKind::Unknown => &[],
            TokenKind::Text | TokenKind::Special => {
                let id = id as usize;
                &self.bytes[self.starts[id]..self.starts[id + 1]]
            }
        }
    }
}

/// Appends the bytes a spelling stands for. A spelling with any character outside the byte-level alphabet
/// (`<｜User｜>`) stands for its own UTF-8, as in the `ByteLevel` decoder.
fn push_bytes(out: &mut Vec<u8>, spelling: &str, byte_of_char: &[Option<u8>]) {
    let start = out.len();
    for c in spelling.chars() {
        match byte_of_char.get(c as usize).copied().flatten() {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(spelling.as_bytes());
                return;
            }
        }
    }
}

/// GPT-2's byte-level alphabet, character → byte: printable Latin-1 characters are themselves, the 68 other bytes are
/// U+0100 onwards in ascending order.
fn byte_level_alphabet() -> Vec<Option<u8>> {
    let is_itself = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut byte_of_char = vec![None; 0x100];
    for byte in 0..=u8::MAX {
        if is_itself(byte) {
            byte_of_char[byte as usize] = Some(byte);
        } else {
            byte_of_char.push(Some(byte));
        }
    }
    byte_of_char
}
