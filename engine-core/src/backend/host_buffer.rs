//! Memory of backends that run on the host.

use super::{Element, Tensor};

/// Host memory, aligned for every element type.
#[derive(Debug, Default)]
pub struct HostBuffer {
    words: Vec<u64>,
    num_bytes: usize,
}

impl HostBuffer {
    /// Zeroed memory.
    pub fn new(num_bytes: usize) -> Self {
        Self { words: vec![0; num_bytes.div_ceil(8)], num_bytes }
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
