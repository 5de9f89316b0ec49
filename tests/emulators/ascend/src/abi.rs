//! Numbers of CANN's C interfaces, as their references document them.

/// What every function returns.
pub(crate) type Status = i32;

pub(crate) mod status {
    use super::Status;

    pub(crate) const SUCCESS: Status = 0;
    pub(crate) const UNINITIALIZED: Status = 100_001;
    pub(crate) const REPEAT_INITIALIZE: Status = 100_002;
    pub(crate) const PARAM_INVALID: Status = 107_000;
    pub(crate) const CONTEXT_NULL: Status = 107_002;
    pub(crate) const STREAM_CONTEXT: Status = 107_003;
    pub(crate) const TASK_TIMEOUT: Status = 107_020;
    /// A wait for a stream whose work was aborted meanwhile.
    pub(crate) const STREAM_ABORT: Status = 107_023;
    pub(crate) const CAPTURE_DEPENDENCY: Status = 107_024;
    pub(crate) const STREAM_CAPTURED: Status = 107_027;
    pub(crate) const STREAM_NOT_CAPTURED: Status = 107_029;
    pub(crate) const CAPTURE_MODE_NOT_SUPPORT: Status = 107_030;
    pub(crate) const TASK_GROUP_STATUS: Status = 107_033;
    pub(crate) const STREAM_CAPTURE_UNMATCHED: Status = 107_036;
    pub(crate) const MODEL_RUNNING: Status = 107_037;
    pub(crate) const STREAM_CAPTURE_WRONG_THREAD: Status = 107_038;
    pub(crate) const MEMORY_ALLOCATION: Status = 207_001;
    pub(crate) const NO_DEVICE: Status = 207_004;
    /// An operator was given null for what it needs.
    pub(crate) const NULLPTR: Status = 161_001;
    /// An operator was given what it does not take.
    pub(crate) const INVALID: Status = 161_002;
    /// An operator does not run with these sizes.
    pub(crate) const TILING: Status = 561_002;
    /// An executor that does not exist, or not any more.
    pub(crate) const NULL_EXECUTOR: Status = 561_103;
    pub(crate) const TASK_TYPE_NOT_SUPPORT: Status = 507_009;
    pub(crate) const STREAM_CAPTURE_INVALIDATED: Status = 507_903;
    pub(crate) const LOST_HEARTBEAT: Status = 507_010;
    pub(crate) const AICORE_EXCEPTION: Status = 507_015;
}

/// `HcclResult`.
pub(crate) mod hccl {
    use super::Status;

    pub(crate) const SUCCESS: Status = 0;
    pub(crate) const PARA: Status = 1;
    pub(crate) const PTR: Status = 2;
    pub(crate) const INTERNAL: Status = 4;
    pub(crate) const NOT_SUPPORT: Status = 5;
    pub(crate) const RUNTIME: Status = 15;
    pub(crate) const REMOTE: Status = 21;
}

/// `aclFormat`: rows, and tiles of 16 rows and 32 bytes of columns.
pub(crate) const FORMAT_ND: i32 = 2;
pub(crate) const FORMAT_NZ: i32 = 29;

/// `aclrtMemAttr`: device memory.
pub(crate) const HBM_MEM: u32 = 1;

/// `ACL_EVENT_EXTERNAL`: orders a graph behind its updates.
pub(crate) const EVENT_EXTERNAL: u32 = 0x20;
