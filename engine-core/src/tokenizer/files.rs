//! Reading the checkpoint's text files: absent is an answer, anything else wrong is a typed error.

use std::io;
use std::path::Path;

use super::TokenizerError;
use crate::file::read_bytes;

/// Largest file read; the tokenizers of the family have 8 to 20 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The text of `file`, or `None` when it does not exist.
pub(super) fn read_text(file: &Path) -> Result<Option<String>, TokenizerError> {
    let bytes = match read_bytes(file, MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TokenizerError::Read { file: file.to_path_buf(), source }),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(e) => Err(TokenizerError::NotUtf8 { file: file.to_path_buf(), offset: e.utf8_error().valid_up_to() }),
    }
}

/// `text` as JSON; `file` is named in the error.
pub(super) fn parse_json(file: &Path, text: &str) -> Result<serde_json::Value, TokenizerError> {
    serde_json::from_str(text).map_err(|e| json_error(file, &e))
}

/// What `serde_json` said about `file`.
pub(super) fn json_error(file: &Path, error: &serde_json::Error) -> TokenizerError {
    TokenizerError::Json {
        file: file.to_path_buf(),
        line: error.line(),
        column: error.column(),
        reason: error.to_string(),
    }
}
