//! Memory of backends that run on the host.

use super::{Element, StepError, Tensor};

/// Host memory, aligned for every element type.
#[derive(Debug, Default)]
pub struct HostBuffer {
    words: Vec<u64>,
    num_bytes: usize,
}

impl HostBuffer {
    /// Zeroed memory.
    ///
    /// # Errors
    /// [`StepError::OutOfMemory`], in the name of `device`, where the allocator would end the process.
    pub fn new(num_bytes: usize, device: &str) -> Result<Self, StepError> {
        let num_words = num_bytes.div_ceil(8);
        // Asking first keeps the allocation itself lazy: pages are touched when they are written.
        Vec::<u64>::new().try_reserve_exact(num_words).map_err(|_| StepError::OutOfMemory {
            device: device.to_owned(),
            what: "a tensor".into(),
            requested_bytes: num_bytes as u64,
        })?;
        Ok(Self { words: vec![0; num_words], num_bytes })
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.num_bytes]
    }

    /// All bytes, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.num_bytes]
    }
}

impl<E: Element> Tensor<HostBuffer, E> {
    /// The live rows.
    pub fn as_slice(&self) -> &[E] {
        &bytemuck::cast_slice(self.buffer().bytes())[..self.rows() * self.cols()]
    }

    /// The live rows, writable.
    pub fn as_mut_slice(&mut self) -> &mut [E] {
        let len = self.rows() * self.cols();
        &mut bytemuck::cast_slice_mut(self.buffer_mut().bytes_mut())[..len]
    }

    /// One live row.
    ///
    /// # Panics
    /// If `row` is not live.
    pub fn row(&self, row: usize) -> &[E] {
        let cols = self.cols();
        &self.as_slice()[row * cols..][..cols]
    }
}
