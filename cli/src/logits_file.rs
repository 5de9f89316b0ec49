//! All logits of a text as one safetensors file, streamed: they may be larger than memory.

use std::io::{self, Write};
use std::path::Path;

use bathysphere::Engine;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::output_file::OutputFile;

/// Writes `logits` [T, vocab] in f32: row t holds the logits after token t, given those before it in its window.
pub(crate) fn write(
    engine: &Engine,
    interrupt: &Interrupt,
    tokens: &[u32],
    window: usize,
    path: &Path,
) -> Result<(), CliError> {
    let stoppable = interrupt.stoppable();
    let mut file = OutputFile::create(path)?;
    file.write(|out| write_header(out, tokens.len(), engine.config().vocab_size))?;
    for inputs in tokens.chunks(window) {
        for chunk in engine.logits(inputs, false)? {
            let bytes: Vec<u8> = chunk?.logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
            file.write(|out| out.write_all(&bytes))?;
            if stoppable.is_requested() {
                return Err(CliError::Interrupted);
            }
        }
    }
    file.commit()
}

/// A safetensors header: its length in 8 bytes, then JSON, filled up with spaces so that the data is aligned.
fn write_header(out: &mut dyn Write, rows: usize, columns: usize) -> io::Result<()> {
    let info = TensorInfo {
        dtype: Dtype::F32,
        shape: vec![rows, columns],
        data_offsets: (0, rows * columns * size_of::<f32>()),
    };
    let metadata = Metadata::new(None, vec![("logits".to_owned(), info)]).map_err(io::Error::other)?;
    let mut json = serde_json::to_vec(&metadata)?;
    json.resize(json.len().next_multiple_of(size_of::<u64>()), b' ');
    out.write_all(&(json.len() as u64).to_le_bytes())?;
    out.write_all(&json)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_header_is_read_by_safetensors() {
        let mut file = Vec::new();
        write_header(&mut file, 3, 5).unwrap();
        assert!(file.len().is_multiple_of(8));
        file.extend([0; 3 * 5 * 4]);
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let logits = tensors.tensor("logits").unwrap();
        assert_eq!((logits.dtype(), logits.shape()), (Dtype::F32, &[3, 5][..]));
    }
}
