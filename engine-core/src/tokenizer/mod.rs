//! Text to token ids and back: [`Tokenizer`], [`DetokenizeStream`], [`StopStrings`], [`ChatTemplate`] (spec section 8).
//!
//! A checkpoint without `tokenizer.json` or without a chat template is complete: it is used by ids, or by raw prompts.

mod chat;
mod config;
mod detokenize;
mod error;
mod files;
mod parts;
mod stop;
#[cfg(test)]
mod tests;
mod token_table;

use std::path::Path;

pub use chat::{ChatMessage, ChatOptions, ChatTemplate, Role};
pub use detokenize::DetokenizeStream;
pub use error::TokenizerError;
pub use stop::{StopOutput, StopStrings};

use tokenizers::Tokenizer as HfTokenizer;

use config::TokenizerConfig;
use files::read_text;
use parts::check_parts;
use token_table::{TokenKind, TokenTable};

/// Ids above this are taken for a damaged file; the largest published vocabularies are near 2^18.
const MAX_TOKEN_ID: u32 = (1 << 24) - 1;

/// The pattern engine gives up, without a word, after a million backtracking steps; of the family's patterns only
/// those for whitespace backtrack, one step per character.
const MAX_WHITESPACE_RUN: usize = 500_000;

/// A byte-level BPE tokenizer, as in every checkpoint of the family.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use engine_core::tokenizer::Tokenizer;
///
/// let tokenizer = Tokenizer::from_dir("models/tiny-deepseek-v3-bf16".as_ref())?.ok_or("no tokenizer.json")?;
/// let ids = tokenizer.encode("The ownership system in Rust", true)?;
/// assert_eq!(tokenizer.decode(&ids, true), "The ownership system in Rust");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Tokenizer {
    inner: HfTokenizer,
    table: TokenTable,
    bos_token_id: Option<u32>,
    eos_token_id: Option<u32>,
    add_bos_token: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where present, `tokenizer_config.json`. `None` when there is no `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError`] naming the file and what was found in it.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>, TokenizerError> {
        let file = dir.join("tokenizer.json");
        let Some(text) = read_text(&file)? else { return Ok(None) };
        let inner = load(&file, &text)?;
        let table = table_of(&file, &inner)?;
        let config = TokenizerConfig::from_dir(dir)?;
        let special_id = |key: &'static str| match config.special_token(key) {
            None => Ok(None),
            Some(token) => inner.token_to_id(token).map(Some).ok_or_else(|| TokenizerError::SpecialToken {
                file: config.file.clone(),
                key,
                token: token.to_owned(),
            }),
        };
        let bos_token_id = special_id("bos_token")?;
        let eos_token_id = special_id("eos_token")?;
        let add_bos_token = config.add_bos_token.unwrap_or_else(|| post_processor_adds(&inner, bos_token_id));
        Ok(Some(Self { inner, table, bos_token_id, eos_token_id, add_bos_token }))
    }

    /// The ids of `text`. Special tokens written in the text are recognised.
    ///
    /// With `add_bos`, begin-of-sentence comes first if the checkpoint asks for it (`add_bos_token`) and the text does
    /// not already start with it. End-of-sentence is never added: the ids are a prompt.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when the tokenizer's model refuses the text, [`TokenizerError::WhitespaceRun`] when
    /// half a million whitespace characters follow each other.
    pub fn encode(&self, text: &str, add_bos: bool) -> Result<Vec<u32>, TokenizerError> {
        check_whitespace_runs(text)?;
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| TokenizerError::Encode { bytes: text.len(), reason: e.to_string() })?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some(bos) = self.bos_token_id
            && add_bos
            && self.add_bos_token
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The text of `ids`: their bytes side by side, U+FFFD for every sequence that is not UTF-8.
    ///
    /// Ids without a token contribute nothing ([`num_unknown`](Self::num_unknown) counts them). `skip_special_tokens`
    /// leaves out the tokens flagged special in `tokenizer.json`: begin and end of sentence and padding, but not
    /// `<think>` or the tool markers (spec section 8).
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        let kept = ids.iter().filter(|&&id| !(skip_special_tokens && self.is_special(id)));
        let bytes: Vec<u8> = kept.flat_map(|&id| self.table.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How many of `ids` have no token: `vocab_size` of a checkpoint exceeds its tokenizer's entries (spec section 8).
    pub fn num_unknown(&self, ids: &[u32]) -> usize {
        ids.iter().filter(|&&id| self.table.kind(id) == TokenKind::Unknown).count()
    }

    /// Begin of sentence, as named by `tokenizer_config.json`.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.bos_token_id
    }

    /// End of sentence, as named by `tokenizer_config.json`; `config.json` may name further ids.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.eos_token_id
    }

    /// One past the highest id that has a token; at most the model's `vocab_size` in a sound checkpoint.
    pub fn vocab_size(&self) -> usize {
        self.table.num_ids()
    }

    /// The id of the token spelled `token` in `tokenizer.json` (`<think>`, `Ġthe`).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The bytes `id` stands for, which need not be whole characters; `None` for an id without a token.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        (self.table.kind(id) != TokenKind::Unknown).then(|| self.table.bytes(id))
    }

    /// True for tokens flagged special in `tokenizer.json`.
    pub fn is_special(&self, id: u32) -> bool {
        self.table.kind(id) == TokenKind::Special
    }
}

fn check_whitespace_runs(text: &str) -> Result<(), TokenizerError> {
    if text.len() <= MAX_WHITESPACE_RUN {
        return Ok(());
    }
    let mut offset = 0;
    for run in text.split(|c: char| !c.is_whitespace()) {
        let length = run.chars().count();
        if length > MAX_WHITESPACE_RUN {
            return Err(TokenizerError::WhitespaceRun { offset, run: length, accepted: MAX_WHITESPACE_RUN });
        }
        let separator = text[offset + run.len()..].chars().next().map_or(0, char::len_utf8);
        offset += run.len() + separator;
    }
    Ok(())
}

/// Builds the library's tokenizer, without the truncation and padding a training script may have left in the file.
fn load(file: &Path, text: &str) -> Result<HfTokenizer, TokenizerError> {
    check_parts(file, text)?;
    let definition = |e: tokenizers::Error| TokenizerError::Definition { file: file.to_owned(), reason: e.to_string() };
    let mut inner: HfTokenizer = text.parse().map_err(definition)?;
    inner.with_padding(None);
    inner.with_truncation(None).map_err(definition)?;
    Ok(inner)
}

fn table_of(file: &Path, inner: &HfTokenizer) -> Result<TokenTable, TokenizerError> {
    let highest = inner.get_vocab(true).into_values().max();
    if let Some(id) = highest
        && id > MAX_TOKEN_ID
    {
        return Err(TokenizerError::TokenId { file: file.to_path_buf(), id, limit: MAX_TOKEN_ID });
    }
    let num_ids = highest.map_or(0, |id| id + 1);
    let added = inner.get_added_tokens_decoder();
    Ok(TokenTable::new((0..num_ids).map(|id| {
        let token = inner.id_to_token(id)?;
        Some((token, added.get(&id).is_some_and(|t| t.special)))
    })))
}

/// True when the file's own post-processor puts `bos` in front of a text.
fn post_processor_adds(inner: &HfTokenizer, bos: Option<u32>) -> bool {
    inner.encode_fast("", true).is_ok_and(|e| bos.is_some() && e.get_ids().first().copied() == bos)
}
