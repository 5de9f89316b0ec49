//! Stop strings on streamed text.

/// Finds stop strings in a text that arrives in pieces, and holds back whatever could be the beginning of one.
///
/// The match is the one that *ends* first, and of those that end on the same character the longest: what is found does
/// not depend on how the text was cut into pieces. Memory is that of the stop strings (Knuth-Morris-Pratt).
#[derive(Debug, Clone)]
pub struct StopStrings {
    patterns: Vec<Pattern>,
    include_stop_str_in_output: bool,
    /// Text not yet given out: the longest beginning of a stop string that the text ends with.
    held: String,
    stopped: bool,
}

/// What a piece of text made certain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StopOutput {
    /// Text to give out now.
    pub text: String,
    /// Index of the stop string that was found; the text ends here.
    pub stop: Option<usize>,
}

#[derive(Debug, Clone)]
struct Pattern {
    bytes: Box<[u8]>,
    /// `fallback[n]`: length of the longest proper beginning of the pattern that its first `n` bytes end with.
    fallback: Box<[usize]>,
    /// Bytes of the pattern that the text so far ends with.
    matched: usize,
}

impl StopStrings {
    /// A matcher at the start of a text. Empty strings in `stop` match nothing
    /// ([`SamplingParams::validate`](crate::sampling::SamplingParams::validate) refuses them).
    pub fn new(stop: &[String], include_stop_str_in_output: bool) -> Self {
        Self {
            patterns: stop.iter().map(|s| Pattern::new(s)).collect(),
            include_stop_str_in_output,
            held: String::new(),
            stopped: false,
        }
    }

    /// Takes the next piece of text. After a stop everything is ignored.
    pub fn push(&mut self, text: &str) -> StopOutput {
        if self.stopped {
            return StopOutput::default();
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (i, &byte) in text.as_bytes().iter().enumerate() {
            if let Some((index, length)) = self.advance(byte) {
                let end = before + i + 1;
                return self.stop_at(index, end - length, end);
            }
        }
        StopOutput { text: self.release(), stop: None }
    }

    /// As [`push`](Self::push), for text in which a stop string must not end yet (`min_tokens`); one may begin in it.
    pub fn push_without_stopping(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        for &byte in text.as_bytes() {
            self.advance(byte);
        }
        self.release()
    }

    /// Ends the text: what was held back after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Moves every pattern on by one byte; (index, bytes) of the longest that is now complete.
    fn advance(&mut self, byte: u8) -> Option<(usize, usize)> {
        let mut longest: Option<(usize, usize)> = None;
        for (index, pattern) in self.patterns.iter_mut().enumerate() {
            let length = pattern.bytes.len();
            if pattern.advance(byte) && longest.is_none_or(|(_, other)| length > other) {
                longest = Some((index, length));
            }
        }
        longest
    }

    fn stop_at(&mut self, index: usize, start: usize, end: usize) -> StopOutput {
        self.stopped = true;
        let mut text = std::mem::take(&mut self.held);
        text.truncate(if self.include_stop_str_in_output { end } else { start });
        StopOutput { text, stop: Some(index) }
    }

    /// Everything but the longest beginning of a stop string at the end. Patterns are UTF-8, so the cut is between
    /// characters.
    fn release(&mut self) -> String {
        let held = self.patterns.iter().map(|p| p.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - held);
        std::mem::replace(&mut self.held, rest)
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut fallback = vec![0; bytes.len() + 1];
        let mut length = 0;
        for i in 1..bytes.len() {
            while length > 0 && bytes[i] != bytes[length] {
                length = fallback[length];
            }
            length += usize::from(bytes[i] == bytes[length]);
            fallback[i + 1] = length;
        }
        Self { bytes: bytes.into(), fallback: fallback.into(), matched: 0 }
    }

    /// True when the pattern is complete with `byte`; `matched` then falls back, ready for an overlapping match.
    fn advance(&mut self, byte: u8) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        if self.matched < self.bytes.len() {
            return false;
        }
        self.matched = self.fallback[self.matched];
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand_core::{Rng, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    fn matcher(stop: &[&str], include: bool) -> StopStrings {
        StopStrings::new(&stop.iter().map(|&s| s.to_owned()).collect::<Vec<_>>(), include)
    }

    /// What the whole text gives: (text given out, index of the stop), by searching every prefix.
    fn naive(stop: &[&str], include: bool, text: &str) -> (String, Option<usize>) {
        for end in text.char_indices().map(|(at, c)| at + c.len_utf8()) {
            let ending = |s: &&str| !s.is_empty() && text[..end].ends_with(s);
            let Some(longest) = stop.iter().copied().filter(ending).max_by_key(|s| s.len()) else { continue };
            let cut = if include { end } else { end - longest.len() };
            return (text[..cut].to_owned(), stop.iter().position(|&s| s == longest));
        }
        (text.to_owned(), None)
    }

    fn stream<'a>(matcher: &mut StopStrings, pieces: impl Iterator<Item = &'a str>) -> (String, Option<usize>) {
        let mut out = String::new();
        for piece in pieces {
            let output = matcher.push(piece);
            out.push_str(&output.text);
            if output.stop.is_some() {
                assert_eq!(matcher.finish(), "");
                return (out, output.stop);
            }
        }
        (out + &matcher.finish(), None)
    }

    #[test]
    fn agrees_with_a_naive_search_however_the_text_is_cut() {
        let mut rng = Pcg64::seed_from_u64(3);
        let mut below = |n: u64| (rng.next_u64() % n) as usize;
        let letters = ["a", "b", "é", "🙂"];
        let mut num_stopped = 0;
        for _ in 0..4000 {
            let mut word = |longest: u64| (0..below(longest + 1)).map(|_| letters[below(3)]).collect::<String>();
            let stops: Vec<String> = (0..3).map(|_| word(5)).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<String> = (0..8).map(|_| word(3)).collect();
            let include = below(2) == 0;
            let expected = naive(&stops, include, &pieces.concat());
            let got = stream(&mut matcher(&stops, include), pieces.iter().map(String::as_str));
            assert_eq!(got, expected, "{stops:?} {pieces:?}");
            num_stopped += usize::from(got.1.is_some());
        }
        assert!((500..3500).contains(&num_stopped), "{num_stopped}");
    }

    #[test]
    fn gives_out_what_cannot_be_a_stop_string_at_once() {
        let mut stops = matcher(&["</end>", "🙂🙂"], false);
        let mut push = |text: &str| stops.push(text).text;
        assert_eq!(push("plain"), "plain");
        assert_eq!(push("a </en"), "a ");
        assert_eq!(push("t"), "</ent");
        assert_eq!(push("<<"), "<");
        assert_eq!(push("x🙂"), "<x");
        assert_eq!(stops.push("🙂y"), StopOutput { text: String::new(), stop: Some(1) });
        assert_eq!(stops.push("more"), StopOutput::default());
    }

    #[test]
    fn memory_stays_that_of_the_stop_strings() {
        let mut stops = matcher(&["aaab"], false);
        for _ in 0..1000 {
            assert_eq!(stops.push("aaa").stop, None);
            assert!(stops.held.len() < 4 && stops.held.capacity() < 32);
        }
    }

    #[test]
    fn a_stop_string_may_begin_but_not_end_before_stopping_is_allowed() {
        let mut stops = matcher(&["abc"], false);
        assert_eq!(stops.push_without_stopping("abc ab"), "abc ");
        assert_eq!(stops.push("c d"), StopOutput { text: String::new(), stop: Some(0) });
    }

    #[test]
    fn an_empty_stop_string_matches_nothing() {
        assert_eq!(stream(&mut matcher(&[""], false), ["a", "b"].into_iter()), ("ab".to_owned(), None));
    }
}
