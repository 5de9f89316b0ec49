//! Typed views of device memory.

use std::marker::PhantomData;

use half::bf16;

use super::{Backend, StepError};

/// Element types that cross the [`Backend`] boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE single.
    F32,
    /// bfloat16.
    Bf16,
    /// Ids, positions, slots.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub fn num_bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::Bf16 => 2,
        }
    }
}

/// A plain element of a [`Tensor`].
pub trait Element: bytemuck::Pod + Send + Sync + std::fmt::Debug + Default {
    /// Run-time name of the type.
    const DTYPE: DType;

    /// Value as f32 (exact for f32 and bf16).
    fn to_f32(self) -> f32;

    /// Nearest representable value.
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

impl Element for u32 {
    const DTYPE: DType = DType::U32;
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn from_f32(value: f32) -> Self {
        value as u32
    }
}

/// A row-major matrix in device memory: `capacity` rows of `cols` elements, of which the first `rows` are live.
///
/// Tensors are allocated once at their capacity; a step sets how many rows it uses. The type names the buffer, not the
/// backend, so that a wrapper such as [`Traced`](super::Traced) shares the tensors of the backend it wraps.
#[derive(Debug)]
pub struct Tensor<Buf, E> {
    buffer: Buf,
    capacity: usize,
    rows: usize,
    cols: usize,
    element: PhantomData<E>,
}

impl<Buf, E: Element> Tensor<Buf, E> {
    /// Allocates `[capacity, cols]` with all rows live and contents unspecified.
    ///
    /// # Errors
    /// [`StepError::OutOfMemory`] from the backend.
    pub fn alloc<B: Backend<Buffer = Buf>>(backend: &B, capacity: usize, cols: usize) -> Result<Self, StepError> {
        let buffer = backend.alloc(capacity * cols * size_of::<E>())?;
        Ok(Self { buffer, capacity, rows: capacity, cols, element: PhantomData })
    }

    /// Allocates and fills `[data.len() / cols, cols]`.
    ///
    /// # Errors
    /// As [`Tensor::alloc`].
    pub fn from_slice<B: Backend<Buffer = Buf>>(
        backend: &B,
        stream: &mut B::Stream,
        cols: usize,
        data: &[E],
    ) -> Result<Self, StepError> {
        let mut tensor = Self::alloc(backend, data.len() / cols, cols)?;
        tensor.write(backend, stream, data)?;
        Ok(tensor)
    }

    /// Live rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements per row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows allocated.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets the live rows.
    ///
    /// # Panics
    /// If `rows` exceeds the capacity: the runner splits steps before.
    pub fn set_rows(&mut self, rows: usize) {
        assert!(rows <= self.capacity, "{rows} rows in a tensor of capacity {}", self.capacity);
        self.rows = rows;
    }

    /// The device memory.
    pub fn buffer(&self) -> &Buf {
        &self.buffer
    }

    /// The device memory, for an op that writes.
    pub fn buffer_mut(&mut self) -> &mut Buf {
        &mut self.buffer
    }

    /// Queues a copy of `data` into the first rows, which become the live ones.
    ///
    /// # Errors
    /// From the backend.
    ///
    /// # Panics
    /// If `data` is no whole number of rows or exceeds the capacity.
    pub fn write<B: Backend<Buffer = Buf>>(
        &mut self,
        backend: &B,
        stream: &mut B::Stream,
        data: &[E],
    ) -> Result<(), StepError> {
        assert!(data.len().is_multiple_of(self.cols), "{} elements in rows of {}", data.len(), self.cols);
        self.set_rows(data.len() / self.cols);
        backend.write(stream, &mut self.buffer, 0, bytemuck::cast_slice(data))
    }

    /// Copies the live rows to the host, after everything queued before. `out` is resized to fit.
    ///
    /// # Errors
    /// From the backend.
    pub fn read<B: Backend<Buffer = Buf>>(
        &self,
        backend: &B,
        stream: &mut B::Stream,
        out: &mut Vec<E>,
    ) -> Result<(), StepError> {
        out.resize(self.rows * self.cols, E::default());
        self.read_rows(backend, stream, 0, out)
    }

    /// Copies live rows from `first_row` on to the host, as many as `out` holds, after everything queued before.
    ///
    /// # Errors
    /// From the backend.
    ///
    /// # Panics
    /// If `out` is no whole number of rows or goes past the live ones.
    pub fn read_rows<B: Backend<Buffer = Buf>>(
        &self,
        backend: &B,
        stream: &mut B::Stream,
        first_row: usize,
        out: &mut [E],
    ) -> Result<(), StepError> {
        let first = first_row * self.cols;
        assert!(out.len().is_multiple_of(self.cols), "{} elements in rows of {}", out.len(), self.cols);
        assert!(first + out.len() <= self.rows * self.cols, "rows past the {} that are live", self.rows);
        backend.read(stream, &self.buffer, first * size_of::<E>(), bytemuck::cast_slice_mut(out))
    }
}

/// The router's choice for every token of a step.
#[derive(Debug)]
pub struct Routing<Buf> {
    /// Expert ids, `[T, K]`.
    pub ids: Tensor<Buf, u32>,
    /// Combine weights, `[T, K]`, in the order of `ids`.
    pub weights: Tensor<Buf, f32>,
}

impl<Buf> Routing<Buf> {
    /// Allocates for at most `max_num_tokens` tokens of `top_k` experts.
    ///
    /// # Errors
    /// From the backend.
    pub fn alloc<B: Backend<Buffer = Buf>>(
        backend: &B,
        max_num_tokens: usize,
        top_k: usize,
    ) -> Result<Self, StepError> {
        Ok(Self {
            ids: Tensor::alloc(backend, max_num_tokens, top_k)?,
            weights: Tensor::alloc(backend, max_num_tokens, top_k)?,
        })
    }

    /// Sets the live rows.
    pub fn set_rows(&mut self, rows: usize) {
        self.ids.set_rows(rows);
        self.weights.set_rows(rows);
    }
}
