//! Descriptors, and views of device memory as numbers.

use std::ops::Range;

use emulator_common::memory::{load, store};
use half::bf16;

/// `aclDataType`, as far as operators here take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataType {
    F32,
    I8,
    I32,
    U8,
    I64,
    Bool,
    Bf16,
}

impl DataType {
    pub(crate) fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            2 => Self::I8,
            3 => Self::I32,
            4 => Self::U8,
            9 => Self::I64,
            12 => Self::Bool,
            27 => Self::Bf16,
            _ => return None,
        })
    }

    pub(crate) fn num_bytes(self) -> u64 {
        match self {
            Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::Bf16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// A tensor's descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) data_type: DataType,
    pub(crate) dims: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) offset: usize,
    pub(crate) storage: Vec<usize>,
    pub(crate) address: u64,
    /// True where the last two axes lie in tiles of 16 rows and 32 bytes of columns, columns of tiles one after the other.
    pub(crate) is_nz: bool,
}

/// Rows of a tile, and bytes of each.
const TILE_ROWS: usize = 16;
const TILE_BYTES: usize = 32;

/// What a handle stands for.
#[derive(Debug, Clone)]
pub(crate) enum Descriptor {
    Tensor(View),
    /// Handles of tensors, which it owns.
    TensorList(Vec<u64>),
    IntArray(Vec<i64>),
    Scalar(f64),
}

impl Descriptor {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Descriptor::Tensor(_) => "a tensor",
            Descriptor::TensorList(_) => "a list of tensors",
            Descriptor::IntArray(_) => "an array of integers",
            Descriptor::Scalar(_) => "a scalar",
        }
    }
}

impl View {
    pub(crate) fn num_elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Dimensions of the storage of a view in NZ.
    pub(crate) fn nz_storage(&self) -> Vec<usize> {
        let (batch, matrix) = self.dims.split_at(self.dims.len() - 2);
        let columns = self.tile_columns();
        let tiles = [matrix[1].div_ceil(columns), matrix[0].div_ceil(TILE_ROWS), TILE_ROWS, columns];
        [batch, &tiles].concat()
    }

    fn tile_columns(&self) -> usize {
        TILE_BYTES / self.data_type.num_bytes() as usize
    }

    /// Where an element of a view in NZ is, by its index.
    fn nz_offset(&self, index: &[usize]) -> usize {
        let batch = index.len() - 2;
        let (row, column, columns) = (index[batch], index[batch + 1], self.tile_columns());
        let storage = &self.storage;
        let (across, down) = (storage[batch], storage[batch + 1]);
        let number = index[..batch].iter().zip(&self.dims).fold(0, |number, (index, dim)| number * dim + index);
        let tile = (number * across + column / columns) * down + row / TILE_ROWS;
        (tile * TILE_ROWS + row % TILE_ROWS) * columns + column % columns
    }

    /// Elements of the storage that the view reaches, from its beginning.
    pub(crate) fn extent(&self) -> usize {
        if self.is_nz {
            return self.storage.iter().product();
        }
        let last: usize = self.dims.iter().zip(&self.strides).map(|(dim, stride)| (dim.max(&1) - 1) * stride).sum();
        self.offset + last + 1
    }

    /// Addresses that the view may touch.
    pub(crate) fn range(&self) -> Range<u64> {
        self.address..self.address + self.extent() as u64 * self.data_type.num_bytes()
    }

    pub(crate) fn is_dense(&self) -> bool {
        let mut stride = 1;
        self.dims.iter().zip(&self.strides).rev().all(|(dim, found)| {
            let as_dense = *dim == 1 || *found == stride;
            stride *= dim;
            as_dense
        })
    }

    /// The last two axes exchanged.
    pub(crate) fn transposed(&self) -> Self {
        let (mut view, last) = (self.clone(), self.dims.len() - 1);
        view.dims.swap(last - 1, last);
        view.strides.swap(last - 1, last);
        view
    }

    /// Addresses of the elements in row-major order, a row of the last axis at a time: most of an emulated step is spent here.
    fn for_each_address(&self, mut visit: impl FnMut(u64)) {
        let bytes = self.data_type.num_bytes();
        let last = self.dims.len().saturating_sub(1);
        let (len, stride) = (self.dims.get(last).map_or(1, |dim| *dim), self.strides.get(last).map_or(0, |s| *s));
        let mut index = vec![0; self.dims.len()];
        for _ in 0..self.dims[..last].iter().product::<usize>() {
            if self.is_nz {
                let (first, columns) = (self.nz_offset(&index), self.tile_columns());
                let tiles_apart = self.storage[last] * TILE_ROWS * columns;
                for column in 0..len {
                    visit(self.address + (first + column / columns * tiles_apart + column % columns) as u64 * bytes);
                }
            } else {
                let first = self.offset + index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum::<usize>();
                for i in 0..len {
                    visit(self.address + (first + i * stride) as u64 * bytes);
                }
            }
            for axis in (0..last).rev() {
                index[axis] += 1;
                if index[axis] < self.dims[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
    }

    fn read<T>(&self, read: impl Fn(u64) -> T) -> Vec<T> {
        let mut values = Vec::with_capacity(self.num_elements());
        self.for_each_address(|address| values.push(read(address)));
        values
    }

    fn store<T: Copy>(&self, values: &[T], store: impl Fn(u64, T)) {
        debug_assert_eq!(values.len(), self.num_elements());
        let mut values = values.iter();
        self.for_each_address(|address| {
            if let Some(value) = values.next() {
                store(address, *value);
            }
        });
    }

    /// All elements as f32, in row-major order.
    pub(crate) fn floats(&self) -> Vec<f32> {
        match self.data_type {
            DataType::F32 => self.read(load::<f32>),
            DataType::Bf16 => self.read(|address| bf16::from_bits(load(address)).to_f32()),
            DataType::I8 => self.read(|address| f32::from(load::<i8>(address))),
            DataType::U8 | DataType::Bool => self.read(|address| f32::from(load::<u8>(address))),
            DataType::I32 => self.read(|address| load::<i32>(address) as f32),
            DataType::I64 => self.read(|address| load::<i64>(address) as f32),
        }
    }

    /// All elements as integers, in row-major order.
    pub(crate) fn integers(&self) -> Vec<i64> {
        match self.data_type {
            DataType::I64 => self.read(load::<i64>),
            DataType::I32 => self.read(|address| i64::from(load::<i32>(address))),
            DataType::I8 => self.read(|address| i64::from(load::<i8>(address))),
            DataType::U8 | DataType::Bool => self.read(|address| i64::from(load::<u8>(address))),
            DataType::F32 | DataType::Bf16 => self.read(|_| 0),
        }
    }

    /// Writes elements in row-major order, each rounded to the view's type.
    pub(crate) fn write(&self, values: &[f32]) {
        match self.data_type {
            DataType::F32 => self.store(values, store),
            DataType::Bf16 => self.store(values, |address, value| store(address, bf16::from_f32(value).to_bits())),
            DataType::I8 => self.store(values, |address, value| store(address, value as i8)),
            DataType::U8 | DataType::Bool => self.store(values, |address, value| store(address, value as u8)),
            DataType::I32 => self.store(values, |address, value| store(address, value as i32)),
            DataType::I64 => self.store(values, |address, value| store(address, value as i64)),
        }
    }

    /// As [`View::write`], of integers.
    pub(crate) fn write_integers(&self, values: &[i64]) {
        match self.data_type {
            DataType::I64 => self.store(values, store),
            DataType::I32 => self.store(values, |address, value| store(address, value as i32)),
            DataType::I8 => self.store(values, |address, value| store(address, value as i8)),
            DataType::U8 | DataType::Bool => self.store(values, |address, value| store(address, value as u8)),
            DataType::F32 | DataType::Bf16 => {}
        }
    }
}
