//! The Huawei Ascend backend: CANN's operators on Atlas A2 and A3, with bf16 and INT8 weights.
//!
//! * [`driver`]: calls of CANN's libraries, each behind a safe function; the only `unsafe` code of the crate. The libraries
//!   are opened when somebody asks for a device: the crate builds and starts on machines that have none.
//! * [`probe`]: whether a device can be used, and if not, why: which libraries were tried, which operators are missing.
//! * [`capture`]: steps that are recorded and replayed.
//! * The ops as sequences of CANN's operators: [`linear`], [`ffn`], [`experts`], [`gate`], [`mla`]. [`scratch`] holds what
//!   lives between them; [`nz`] packs weights for operators that want them so.
//!
//! Devices of one [`group`] add up their sums through HCCL, in the order of the stream.
//!
//! Atlas A2 and A3 compute in bf16 and INT8 and know no FP8: checkpoints in FP8 are converted on the host while loading.

#![allow(rustdoc::private_intra_doc_links)]

mod backend;
mod capture;
mod device;
mod driver;
mod experts;
mod ffn;
mod gate;
mod group;
mod linear;
mod mla;
mod norm;
mod nz;
mod probe;
mod scratch;

pub use backend::AscendBackend;
pub use capture::AscendGraph;
pub use device::AscendBuffer;
pub use driver::AscendCounts;
pub use experts::AscendExperts;
pub use ffn::AscendFfn;
pub use gate::AscendGate;
pub use linear::{AscendEmbedding, AscendLinear};
pub use mla::{AscendLatentCache, AscendMla, AscendQueries};
pub use norm::AscendNorm;
pub use probe::{Reason, num_devices};
pub use scratch::AscendStream;
