//! Prepared weights: stacks of equal matrices, packed as they came, split into slabs that a device can bind.

use std::ops::Range;
use std::sync::Arc;

use engine_core::backend::{PrepareError, StepError};
use engine_core::quant::{FP8_BLOCK, HostWeight, WeightFormat};

use crate::gpu::{Gpu, WgpuBuffer};
use crate::kernels::{Scaling, chunk};

/// Rows are padded with zeros to a multiple of this many weights, so that kernels read whole steps.
const ROW_PADDING: usize = 32;
/// Rows of a slab at most: a grid has up to 65 535 workgroups in one dimension, and some kernels make one output in each.
/// A multiple of FP8's 128.
const MAX_SLAB_ROWS: usize = 65_408;
/// Bytes handed to the driver at once; it copies them.
const UPLOAD_BYTES: usize = 8 << 20;
/// Bytes handed over between waits: the driver's copies live until then.
const UPLOAD_WINDOW: usize = 64 << 20;

/// `count` matrices `[rows, cols]` of one format. An expert's gate and up follow each other and are never parted.
#[derive(Debug)]
pub struct Matrix {
    pub(crate) format: WeightFormat,
    pub(crate) scaling: Scaling,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Inputs per scale.
    pub(crate) scale_group: usize,
    pub(crate) slabs: Vec<Slab>,
}

/// A part of a stack in memory of its own.
#[derive(Debug)]
pub(crate) struct Slab {
    pub(crate) values: WgpuBuffer,
    pub(crate) scales: WgpuBuffer,
    pub(crate) matrices: Range<usize>,
    pub(crate) rows: Range<usize>,
}

impl Matrix {
    /// Uploads a stack. `unit` matrices stay together: 2 for gate and up.
    ///
    /// # Errors
    /// [`PrepareError::Unsupported`] for INT4 groups that are no multiple of 4 and for a row that does not fit a binding;
    /// [`PrepareError::Device`] when the device is full.
    pub(crate) fn new(gpu: &Arc<Gpu>, unit: usize, weights: &[HostWeight]) -> Result<Self, PrepareError> {
        let (Some(first), count) = (weights.first(), weights.len()) else {
            return Err(gpu.unsupported(
                "experts".into(),
                "there are none".into(),
                "the checkpoint is damaged, fetch it again",
            ));
        };
        let (format, shape) = (first.format(), first.shape());
        let scale_group = scale_group(first);
        let refuse = |reason: String, action: &str| {
            Err(gpu.unsupported(format!("{format} weights of shape {shape}"), reason, action))
        };
        for other in weights {
            if (other.format(), other.shape(), self::scale_group(other)) != (format, shape, scale_group) {
                let reason = format!("matrices used together differ: {} and {}", describe(first), describe(other));
                return refuse(reason, "give all of them one precision");
            }
        }
        if format == WeightFormat::Int4Group && !scale_group.is_multiple_of(4) {
            let reason = format!("its groups hold {scale_group} values, not a multiple of 4");
            return refuse(reason, "convert the checkpoint with groups of 32, 64 or 128");
        }
        let scaling = match format {
            WeightFormat::F32 | WeightFormat::Bf16 => Scaling::None,
            WeightFormat::Int8Channel => Scaling::Row,
            WeightFormat::Int4Group if !scale_group.is_multiple_of(ROW_PADDING) => Scaling::Quad,
            WeightFormat::Fp8Block | WeightFormat::Int4Group => Scaling::Block,
        };
        let mut matrix =
            Self { format, scaling, rows: shape.out_features, cols: shape.in_features, scale_group, slabs: Vec::new() };
        let Some((matrices_per_slab, rows_per_slab)) = matrix.slab_size(gpu, unit, count) else {
            let (rows, most) = (unit * matrix.rows_per_scale(), gpu.max_binding_bytes());
            let need = rows * matrix.largest_row_bytes();
            let reason = format!("{rows} of its rows take {need} bytes, the device binds at most {most} at once");
            return refuse(reason, "choose another adapter");
        };
        for start in (0..count).step_by(matrices_per_slab) {
            let matrices = start..(start + matrices_per_slab).min(count);
            for row in (0..matrix.rows).step_by(rows_per_slab) {
                let rows = row..(row + rows_per_slab).min(matrix.rows);
                let slab = matrix.upload(gpu, weights, matrices.clone(), rows)?;
                matrix.slabs.push(slab);
            }
        }
        Ok(matrix)
    }

    /// vec4<u32> of a row.
    pub(crate) fn row_words(&self) -> usize {
        self.cols.next_multiple_of(ROW_PADDING) / chunk(self.format) as usize
    }

    fn row_bytes(&self) -> usize {
        16 * self.row_words()
    }

    /// Scales of one row of scales.
    pub(crate) fn scale_row(&self) -> usize {
        match self.format {
            WeightFormat::F32 | WeightFormat::Bf16 => 0,
            WeightFormat::Int8Channel => 1,
            WeightFormat::Fp8Block | WeightFormat::Int4Group => self.cols.div_ceil(self.scale_group),
        }
    }

    /// Scales of `rows` rows that begin at a scale block.
    pub(crate) fn num_scales(&self, rows: usize) -> usize {
        rows.div_ceil(self.rows_per_scale()) * self.scale_row()
    }

    /// Rows that share a scale: slabs do not part them.
    fn rows_per_scale(&self) -> usize {
        if self.format == WeightFormat::Fp8Block { FP8_BLOCK } else { 1 }
    }

    /// Bytes of a row in the larger of its two buffers: scales of small groups take more than their values.
    fn largest_row_bytes(&self) -> usize {
        self.row_bytes().max(4 * self.scale_row())
    }

    /// Matrices and rows per slab: all rows of as many units as fit; else rows of one unit.
    fn slab_size(&self, gpu: &Gpu, unit: usize, count: usize) -> Option<(usize, usize)> {
        let most = usize::try_from(gpu.max_binding_bytes()).unwrap_or(usize::MAX);
        let unit_bytes = (unit * self.rows * self.largest_row_bytes()).max(1);
        if unit_bytes <= most && self.rows <= MAX_SLAB_ROWS {
            return Some(((most / unit_bytes * unit).min(count), self.rows));
        }
        let rows = most / (unit * self.largest_row_bytes()) / self.rows_per_scale() * self.rows_per_scale();
        (rows > 0).then_some((unit, rows.min(MAX_SLAB_ROWS)))
    }

    fn upload(
        &self,
        gpu: &Arc<Gpu>,
        weights: &[HostWeight],
        matrices: Range<usize>,
        rows: Range<usize>,
    ) -> Result<Slab, StepError> {
        let num_bytes = matrices.len() * rows.len() * self.row_bytes();
        let num_scales = matrices.len() * self.num_scales(rows.len());
        let slab = Slab {
            values: gpu.storage(num_bytes as u64, "weights")?,
            scales: gpu.storage(4 * num_scales as u64, "scales of weights")?,
            matrices: matrices.clone(),
            rows: rows.clone(),
        };
        let mut values = Upload::new(gpu, &slab.values);
        for weight in &weights[matrices.clone()] {
            self.upload_rows(&mut values, weight.value_bytes(), rows.clone())?;
        }
        values.finish()?;
        let mut scales = Upload::new(gpu, &slab.scales);
        for weight in &weights[matrices] {
            let per_scale = self.rows_per_scale();
            let wanted = rows.start / per_scale * self.scale_row()..rows.end.div_ceil(per_scale) * self.scale_row();
            scales.push(bytemuck::cast_slice(&weight.scales()[wanted]))?;
        }
        scales.finish()?;
        Ok(slab)
    }

    fn upload_rows(&self, upload: &mut Upload<'_>, bytes: &[u8], rows: Range<usize>) -> Result<(), StepError> {
        let stored = bytes.len() / self.rows;
        let padding = self.row_bytes() - stored;
        if padding == 0 {
            return upload.push(&bytes[rows.start * stored..rows.end * stored]);
        }
        // A padded INT4 row must hold zeros, which are stored as 8.
        let fill = if self.format == WeightFormat::Int4Group { 0x88 } else { 0 };
        let zeros = vec![fill; padding];
        for row in rows {
            upload.push(&bytes[row * stored..][..stored])?;
            upload.push(&zeros)?;
        }
        Ok(())
    }
}

/// Format and shape, for messages.
fn describe(weight: &HostWeight) -> String {
    let (format, shape) = (weight.format(), weight.shape());
    match weight {
        HostWeight::Int4Group(w) => format!("{format} {shape} in groups of {}", w.group_size()),
        HostWeight::F32(_) | HostWeight::Bf16(_) | HostWeight::Fp8Block(_) | HostWeight::Int8Channel(_) => {
            format!("{format} {shape}")
        }
    }
}

/// Inputs per scale along a row.
fn scale_group(weight: &HostWeight) -> usize {
    match weight {
        HostWeight::F32(_) | HostWeight::Bf16(_) | HostWeight::Int8Channel(_) => weight.shape().in_features.max(1),
        HostWeight::Fp8Block(_) => FP8_BLOCK,
        HostWeight::Int4Group(w) => w.group_size(),
    }
}

/// Bytes on their way into a buffer, in pieces: the checkpoint is never copied as a whole.
struct Upload<'a> {
    gpu: &'a Gpu,
    buffer: &'a WgpuBuffer,
    piece: Vec<u8>,
    written: usize,
    since_wait: usize,
}

impl<'a> Upload<'a> {
    fn new(gpu: &'a Gpu, buffer: &'a WgpuBuffer) -> Self {
        Self { gpu, buffer, piece: Vec::new(), written: 0, since_wait: 0 }
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), StepError> {
        while !bytes.is_empty() {
            // Whole pieces go as they are, without a copy here.
            if self.piece.is_empty() && bytes.len() >= UPLOAD_BYTES {
                let (head, rest) = bytes.split_at(UPLOAD_BYTES);
                self.write(head)?;
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at(bytes.len().min(UPLOAD_BYTES - self.piece.len()));
            self.piece.extend_from_slice(head);
            bytes = rest;
            if self.piece.len() == UPLOAD_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StepError> {
        let mut piece = std::mem::take(&mut self.piece);
        // The driver copies words; the buffer has room for the last.
        piece.resize(piece.len().next_multiple_of(4), 0);
        self.write(&piece)?;
        piece.clear();
        self.piece = piece;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        self.gpu.queue.write_buffer(&self.buffer.raw, self.written as u64, bytes);
        self.written += bytes.len();
        self.since_wait += bytes.len();
        if self.since_wait >= UPLOAD_WINDOW {
            self.since_wait = 0;
            self.gpu.drain()?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), StepError> {
        self.flush()?;
        self.gpu.check()
    }
}
