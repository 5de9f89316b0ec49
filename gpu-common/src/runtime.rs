//! What a vendor's crate provides.

use std::fmt::Debug;

use engine_core::backend::{PrepareError, StepError};

use crate::wide::{WideRows, WideWeights};

/// A device as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// Backend name as in `--device`.
    pub backend: String,
    /// The device as its maker calls it.
    pub name: String,
    /// Architecture that kernels are compiled for, as the compiler calls it (`sm_90a`, `gfx942`).
    pub architecture: String,
    /// Threads that run in lockstep: 32 or 64.
    pub wave_size: u32,
    /// Multiprocessors (compute units); work is split until each has some.
    pub num_multiprocessors: u32,
    /// Device memory, in bytes.
    pub total_bytes: u64,
    /// Device memory not in use when the device was opened, in bytes.
    pub free_bytes: u64,
    /// Most shared memory that one block can ask for, in bytes.
    pub max_shared_bytes: u32,
    /// The e4m3 variant of the device's own conversions.
    pub fp8: Fp8,
    /// True where the kernels' matrix tiles run on matrix units.
    pub has_mma: bool,
    /// True where a lane has of a tile of results what it has of a left operand (`RESULT_IS_LEFT` in layout.h): the weights of
    /// attention then need no shared memory.
    pub results_are_operands: bool,
    /// What else its user should know.
    pub notes: Vec<String>,
}

/// Which e4m3 a device converts and multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fp8 {
    /// None: kernels widen FP8 by integer operations.
    None,
    /// e4m3fn, as checkpoints store it: largest value 448.
    Ocp,
    /// e4m3fnuz: largest value 240, one NaN, half the value for the same bits.
    Fnuz,
}

/// How many threads run a kernel, and what they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
}

impl LaunchShape {
    /// Blocks and threads in one dimension.
    pub fn linear(num_blocks: u32, block_size: u32) -> Self {
        Self { grid: [num_blocks, 1, 1], block: [block_size, 1, 1], shared_bytes: 0 }
    }

    /// With dynamic shared memory.
    #[must_use]
    pub fn with_shared(self, shared_bytes: u32) -> Self {
        Self { shared_bytes, ..self }
    }
}

/// One kernel argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// A device address, or 0 for "none".
    Ptr(u64),
    /// A count, size, stride, index or flag.
    U32(u32),
    /// A number.
    F32(f32),
}

impl Arg {
    /// Bytes of the parameter.
    pub fn num_bytes(self) -> usize {
        match self {
            Arg::Ptr(_) => 8,
            Arg::U32(_) | Arg::F32(_) => 4,
        }
    }
}

/// A queue as its vendor's other libraries know it: an address that means something to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativeQueue(pub u64);

/// A vendor's driver: memory, streams and launches. Work of one stream runs in the order in which it was queued.
///
/// A failing driver is a [`StepError`]: out of memory leaves the device usable, everything else is a lost device.
pub trait GpuRuntime: Debug + Send + Sync + 'static {
    /// Device memory, freed when dropped. Dropping waits for queued work that uses it.
    type Buffer: Debug + Send + Sync;
    /// An ordered queue of work.
    type Stream: Debug + Send;
    /// A resolved entry point.
    type Kernel: Clone + Debug + Send + Sync;
    /// Captured work.
    type Graph: Debug + Send;
    /// A prepared product for many rows ([`GpuRuntime::prepare_wide`]); `Infallible` where there is none.
    type Wide: Debug + Send + Sync;

    /// The device.
    fn info(&self) -> &GpuInfo;

    /// Finds kernel `name` of the source file `family`.
    ///
    /// # Errors
    /// [`PrepareError::Unsupported`] naming kernel and architecture where the device's image lacks it.
    fn kernel(&self, family: &'static str, name: &str) -> Result<Self::Kernel, PrepareError>;

    /// Prepares the device's own kernels for products of many quantised rows: `x Wᵀ` for one weight,
    /// `silu(x W0ᵀ) ⊙ x W1ᵀ` for two of one shape. `None` where the device has none, or none for this shape.
    ///
    /// # Errors
    /// Where the device's image lacks what it should have, or the driver fails.
    fn prepare_wide(&self, weights: &[WideWeights]) -> Result<Option<Self::Wide>, PrepareError>;

    /// Rows of the tiles into which rows of several matrices are cut when each has about `rows_per_matrix`.
    fn wide_tile_rows(&self, wide: &Self::Wide, rows_per_matrix: u32) -> u32;

    /// Bytes of device memory that a prepared product of `num_rows` rows needs besides, aligned to 256; 0 for none.
    fn wide_scratch_bytes(&self, wide: &Self::Wide, num_rows: u32) -> usize;

    /// Queues a prepared product. The caller vouches for the addresses as in [`GpuRuntime::launch`].
    ///
    /// # Errors
    /// From the driver.
    fn launch_wide(&self, stream: &mut Self::Stream, wide: &Self::Wide, rows: &WideRows) -> Result<(), StepError>;

    /// Allocates device memory, aligned to 256 bytes, contents unspecified. `what` goes into the error.
    ///
    /// # Errors
    /// [`StepError::OutOfMemory`].
    fn alloc(&self, num_bytes: usize, what: &str) -> Result<Self::Buffer, StepError>;

    /// Where a buffer lies in device memory; it does not move.
    fn address(&self, buffer: &Self::Buffer) -> u64;

    /// Creates a stream.
    ///
    /// # Errors
    /// From the driver.
    fn stream(&self) -> Result<Self::Stream, StepError>;

    /// Queues a copy of host bytes to `offset` of a buffer; `data` may be reused on return.
    ///
    /// # Errors
    /// From the driver.
    fn upload(&self, stream: &mut Self::Stream, to: &Self::Buffer, offset: usize, data: &[u8])
    -> Result<(), StepError>;

    /// Copies from `offset` of a buffer to the host, after everything queued before, and waits for it.
    ///
    /// # Errors
    /// From the driver.
    fn download(
        &self,
        stream: &mut Self::Stream,
        from: &Self::Buffer,
        offset: usize,
        data: &mut [u8],
    ) -> Result<(), StepError>;

    /// Queues a kernel.
    ///
    /// The caller vouches for the arguments: as many and as large as the kernel's parameters, and addresses of memory
    /// that lives until the kernel has run.
    ///
    /// # Errors
    /// From the driver.
    fn launch(
        &self,
        stream: &mut Self::Stream,
        kernel: &Self::Kernel,
        shape: LaunchShape,
        args: &[Arg],
    ) -> Result<(), StepError>;

    /// A stream for the vendor's library of collectives. Its device becomes the calling thread's.
    ///
    /// # Errors
    /// From the driver.
    fn native_queue(&self, stream: &mut Self::Stream) -> Result<NativeQueue, StepError>;

    /// Waits for everything queued.
    ///
    /// # Errors
    /// From the driver.
    fn synchronize(&self, stream: &mut Self::Stream) -> Result<(), StepError>;

    /// True where launches can be recorded.
    fn captures(&self) -> bool;

    /// Begins to record launches of `stream` instead of running them. Waiting, allocating and copying spoil a recording.
    ///
    /// # Errors
    /// From the driver.
    fn begin_capture(&self, stream: &mut Self::Stream) -> Result<(), StepError>;

    /// Ends the recording that [`GpuRuntime::begin_capture`] began; `None` where nothing is being recorded.
    ///
    /// # Errors
    /// From the driver, above all of a recording that was spoiled. The stream then works as before.
    fn end_capture(&self, stream: &mut Self::Stream) -> Result<Option<Self::Graph>, StepError>;

    /// Queues recorded work, with the addresses and sizes it was recorded with.
    ///
    /// # Errors
    /// From the driver.
    fn replay(&self, stream: &mut Self::Stream, graph: &Self::Graph) -> Result<(), StepError>;
}
