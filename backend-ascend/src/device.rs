//! An open device with what preparing and running share: memory, uploads, errors in its name.

use std::sync::Arc;

use engine_core::backend::{PrepareError, Rank, StepError, Unavailable, Unsupported};

use crate::driver::{Allocation, AscendError, Communicator, Context, DataType, Stream, View};
use crate::probe::{self, Fused, Reason, Usable};

/// Device memory of a tensor.
#[derive(Debug)]
pub struct AscendBuffer(pub(crate) Allocation);

/// An open device.
#[derive(Debug)]
pub(crate) struct Device {
    /// Its place in a group, and what sums over that; none alone.
    pub(crate) rank: Rank,
    pub(crate) communicator: Option<Arc<Communicator>>,
    pub(crate) context: Arc<Context>,
    /// As errors name it: `ascend:0 (Ascend910B1)`.
    pub(crate) name: String,
    /// As CANN names it: `Ascend910B1`.
    pub(crate) chip: String,
    pub(crate) product: &'static str,
    pub(crate) has_int8: bool,
    pub(crate) has_fused_attention: bool,
    pub(crate) fused: Fused,
    /// True where steps can be recorded: there are the functions, and attention that they can update.
    pub(crate) captures: bool,
}

impl Device {
    pub(crate) fn open(ordinal: u32) -> Result<Self, Unavailable> {
        let opened = probe::find(ordinal).and_then(|usable| Ok(Self::with(ordinal, usable)?));
        opened.map_err(|reason: Reason| probe::unavailable(ordinal, &reason))
    }

    fn with(ordinal: u32, usable: Usable) -> Result<Self, AscendError> {
        let Usable { libraries, name, product, has_int8, has_fused_attention, fused } = usable;
        let captures = has_fused_attention && libraries.captures();
        let context = Arc::new(Context::new(libraries, ordinal)?);
        tracing::debug!(device = name, product, has_int8, has_fused_attention, ?fused, "opened");
        let chip = name;
        let name = format!("ascend:{ordinal} ({chip})");
        let (rank, communicator) = (Rank::alone(), None);
        Ok(Self { rank, communicator, context, name, chip, product, has_int8, has_fused_attention, fused, captures })
    }

    pub(crate) fn lost(&self, error: &AscendError) -> StepError {
        if error.is_collective() {
            return self.rank.fail(error.to_string());
        }
        StepError::DeviceLost { device: self.name.clone(), reason: error.to_string() }
    }

    fn alloc_error(&self, error: &AscendError, what: &str, num_bytes: usize) -> StepError {
        if error.is_out_of_memory() {
            let requested_bytes = num_bytes as u64;
            return StepError::OutOfMemory { device: self.name.clone(), what: what.to_owned(), requested_bytes };
        }
        self.lost(error)
    }

    /// What came of an operator: only memory for its workspace may run out, anything else loses the device.
    pub(crate) fn check(&self, result: Result<(), AscendError>) -> Result<(), StepError> {
        result.map_err(|error| self.alloc_error(&error, "an operator's workspace", 0))
    }

    pub(crate) fn alloc(&self, num_bytes: usize, what: &str) -> Result<Allocation, StepError> {
        Allocation::new(&self.context, num_bytes).map_err(|error| self.alloc_error(&error, what, num_bytes))
    }

    /// Memory that holds `data`.
    pub(crate) fn upload(&self, data: &[u8], what: &str) -> Result<Allocation, StepError> {
        Allocation::from_bytes(&self.context, data).map_err(|error| self.alloc_error(&error, what, data.len()))
    }

    /// A tensor that holds `values`.
    ///
    /// # Panics
    /// If they are not as many as the dimensions say: a bug of who prepares.
    pub(crate) fn tensor<T: bytemuck::Pod, const N: usize>(
        &self,
        data_type: DataType,
        dims: [usize; N],
        values: &[T],
        what: &str,
    ) -> Result<Matrix, StepError> {
        let num_bytes = dims.iter().product::<usize>() * data_type.num_bytes();
        assert_eq!(std::mem::size_of_val(values), num_bytes, "values of {dims:?}");
        let memory = self.upload(bytemuck::cast_slice(values), what)?;
        Ok(Matrix { view: View::new(memory.address(), data_type, dims), _memory: memory })
    }

    /// A weight that [`nz`](crate::nz) has packed, by the dimensions of what it packed: `[K, N]`, or `[E, K, N]`.
    pub(crate) fn packed<const N: usize>(
        &self,
        data_type: DataType,
        dims: [usize; N],
        packed: &[u8],
        what: &str,
    ) -> Result<Matrix, StepError> {
        let memory = self.upload(packed, what)?;
        Ok(Matrix { view: View::nz(memory.address(), data_type, dims), _memory: memory })
    }

    pub(crate) fn stream(&self) -> Result<Stream, StepError> {
        Stream::new(&self.context, self.communicator.as_ref()).map_err(|error| self.alloc_error(&error, "a stream", 0))
    }

    /// A refusal in this device's name.
    pub(crate) fn unsupported(
        &self,
        what: impl Into<String>,
        reason: impl Into<String>,
        action: impl Into<String>,
    ) -> PrepareError {
        PrepareError::Unsupported(Unsupported {
            backend: self.name.clone(),
            what: what.into(),
            reason: reason.into(),
            action: action.into(),
        })
    }
}

/// A tensor that stays: a weight or a constant.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(crate) view: View,
    /// Keeps the view's memory.
    _memory: Allocation,
}
