//! Ids to text, one id at a time, never half a character.

use std::sync::Arc;

use super::Tokenizer;
use super::token_table::TokenKind;

/// Incremental detokenisation of one sequence.
///
/// The concatenation of everything returned by [`push`](Self::push) and [`finish`](Self::finish) equals
/// [`Tokenizer::decode`] of all ids. A character whose bytes are spread over several tokens is held back until its last
/// byte arrives, so at most three bytes are ever kept and the cost of a push depends on its token alone.
///
/// U+FFFD stands for bytes that can no longer become a character: within the text where the following byte proves it,
/// otherwise at the end.
#[derive(Debug, Clone)]
pub struct DetokenizeStream {
    tokenizer: Arc<Tokenizer>,
    skip_special_tokens: bool,
    /// An unfinished UTF-8 sequence; at most three bytes between calls.
    pending: Vec<u8>,
    num_unknown: usize,
}

impl DetokenizeStream {
    /// A stream at the start of a text. `skip_special_tokens` leaves out tokens flagged special (not `<think>`).
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool) -> Self {
        Self { tokenizer, skip_special_tokens, pending: Vec::new(), num_unknown: 0 }
    }

    /// Takes the next id; returns the text that became certain, if any. An id without a token yields nothing.
    pub fn push(&mut self, id: u32) -> Option<String> {
        match self.tokenizer.table.kind(id) {
            TokenKind::Unknown => {
                self.num_unknown += 1;
                return None;
            }
            TokenKind::Special if self.skip_special_tokens => return None,
            TokenKind::Text | TokenKind::Special => {}
        }
        self.pending.extend_from_slice(self.tokenizer.table.bytes(id));
        let mut text = String::new();
        let done = decode_complete(&self.pending, &mut text);
        self.pending.drain(..done);
        (!text.is_empty()).then_some(text)
    }

    /// Ends the text: whatever was held back, as U+FFFD. The stream is then as new, its count of unknown ids aside.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }

    /// Ids pushed so far that have no token.
    pub fn num_unknown(&self) -> usize {
        self.num_unknown
    }
}

/// Appends the text of `bytes` to `text`, U+FFFD for invalid sequences, and stops before a sequence that more bytes
/// could complete. Returns the number of bytes decoded.
fn decode_complete(bytes: &[u8], text: &mut String) -> usize {
    let mut done = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        done += chunk.valid().len();
        let invalid = chunk.invalid();
        if invalid.is_empty() {
            continue;
        }
        let is_last = done + invalid.len() == bytes.len();
        if is_last && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none()) {
            return done;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        done += invalid.len();
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(bytes: &[u8]) -> (String, usize) {
        let mut text = String::new();
        let done = decode_complete(bytes, &mut text);
        (text, done)
    }

    #[test]
    fn holds_back_only_what_could_still_become_a_character() {
        assert_eq!(split(b"abc"), ("abc".into(), 3));
        assert_eq!(split(b"a\xF0\x9F\x99"), ("a".into(), 1));
        assert_eq!(split(b"a\xF0\x9F\x99\x82"), ("a🙂".into(), 5));
        // F0 needs 90..BF next: 80 proves it broken.
        assert_eq!(split(b"\xF0\x80"), ("\u{FFFD}\u{FFFD}".into(), 2));
        assert_eq!(split(b"\xE2\x82x\xFF\xE2\x82"), ("\u{FFFD}x\u{FFFD}".into(), 4));
    }
}
