//! Reading small files that strangers wrote.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Opens a regular file. Anything else (a directory, a pipe that would block for ever) is an error.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}

/// The content of a regular file of at most `max_bytes`; a larger one is an error before it is in memory.
pub(crate) fn read_bytes(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to know, whatever the system says about the file's size.
    open_regular(path)?.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// As [`read_bytes`], for UTF-8 text.
pub(crate) fn read_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    String::from_utf8(read_bytes(path, max_bytes)?).map_err(|error| {
        let reason = format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to());
        io::Error::new(ErrorKind::InvalidData, reason)
    })
}
