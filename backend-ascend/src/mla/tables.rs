//! What layers share on the device: cos and sin of every position, and masks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use engine_core::backend::StepError;
use engine_core::rope::{DeviceRopeTables, RopeTable};
use half::bf16;

use crate::device::{Device, Matrix};
use crate::driver::{DataType, View};

/// Query rows that unfused attention takes at once.
pub(super) const MASK_ROWS: usize = 128;
/// Side of the mask that fused attention wants for causal attention, whatever the lengths.
const FUSED_MASK_ROWS: usize = 2048;

/// cos and sin, `[max_len, R]` f32 each; the value of a pair stands twice.
#[derive(Debug)]
pub(super) struct RopeMemory {
    pub(super) cos: Matrix,
    pub(super) sin: Matrix,
    /// cos and sin in bf16, the values of all pairs twice; none where no operator takes them.
    halves: Option<[Matrix; 2]>,
    /// Tells tables apart.
    pub(super) id: u64,
}

impl RopeMemory {
    /// cos and sin as operators take them that leave rotated values in the order of halves.
    pub(super) fn halves(&self) -> Option<[View; 2]> {
        self.halves.as_ref().map(|[cos, sin]| [cos.view, sin.view])
    }
}

/// Causal masks.
#[derive(Debug)]
pub(super) struct Masks {
    /// `[MASK_ROWS, 1, MASK_ROWS]` f32: −∞ above the diagonal, to be added to scores.
    pub(super) added: Matrix,
    /// `[2048, 2048]` i8: 1 above the diagonal; none where attention is never fused.
    pub(super) fused: Option<Matrix>,
}

/// Tables that layers share.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    ropes: DeviceRopeTables<RopeMemory>,
    num_ropes_made: AtomicU64,
    masks: Mutex<Weak<Masks>>,
}

impl Tables {
    pub(super) fn rope(&self, device: &Device, table: &Arc<RopeTable>) -> Result<Arc<RopeMemory>, StepError> {
        self.ropes.get(table, || {
            let (cos, sin) = table.as_slices();
            let rows = table.max_len();
            let upload = |values: &[f32]| {
                let doubled: Vec<f32> = values.iter().flat_map(|value| [*value; 2]).collect();
                let width = doubled.len().checked_div(rows).unwrap_or(0);
                device.tensor(DataType::F32, [rows, width], &doubled, "rope tables")
            };
            let upload_halves = |values: &[f32]| {
                let pairs = values.len().checked_div(rows).unwrap_or(0);
                let row = |row: &[f32]| [row, row].concat();
                let doubled: Vec<bf16> = values.chunks(pairs.max(1)).flat_map(row).map(bf16::from_f32).collect();
                device.tensor(DataType::Bf16, [rows, 2 * pairs], &doubled, "rope tables")
            };
            let wants_halves = device.fused.prolog || device.fused.keys;
            let halves = match wants_halves {
                true => Some([upload_halves(cos)?, upload_halves(sin)?]),
                false => None,
            };
            let id = 1 + self.num_ropes_made.fetch_add(1, Ordering::Relaxed);
            Ok(RopeMemory { cos: upload(cos)?, sin: upload(sin)?, halves, id })
        })
    }

    pub(super) fn masks(&self, device: &Device) -> Result<Arc<Masks>, StepError> {
        let mut known = self.masks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(masks) = known.upgrade() {
            return Ok(masks);
        }
        let added = triangle(MASK_ROWS, 0.0, f32::NEG_INFINITY);
        let added = device.tensor(DataType::F32, [MASK_ROWS, 1, MASK_ROWS], &added, "a mask")?;
        let fused = device.has_fused_attention.then(|| {
            let values = triangle(FUSED_MASK_ROWS, 0_i8, 1);
            device.tensor(DataType::I8, [FUSED_MASK_ROWS, FUSED_MASK_ROWS], &values, "a mask")
        });
        let masks = Arc::new(Masks { added, fused: fused.transpose()? });
        *known = Arc::downgrade(&masks);
        Ok(masks)
    }
}

/// `[rows, rows]` with one value up to the diagonal and another above it.
fn triangle<T: Copy>(rows: usize, visible: T, masked: T) -> Vec<T> {
    (0..rows * rows).map(|i| if i % rows > i / rows { masked } else { visible }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_token_does_not_see_those_after_it() {
        assert_eq!(super::triangle(3, 0, 1), [0, 1, 1, 0, 0, 1, 0, 0, 0]);
    }
}
