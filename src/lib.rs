//! DeepSeek-V3-family models on any vendor's hardware: one MLA + MoE graph, many backends.
//!
//! ```no_run
//! use bathysphere::{Device, Engine, SamplingParams};
//!
//! # fn main() -> Result<(), bathysphere::Error> {
//! let engine = Engine::builder("models/tiny-deepseek-v3-fp8").device(Device::Auto).build()?;
//! let answer = engine.generate("In the beginning", SamplingParams { max_tokens: Some(32), ..Default::default() })?;
//! println!("{}", answer.text.unwrap_or_default());
//! # Ok(())
//! # }
//! ```
//!
//! The vendor is a cargo feature (`cpu` by default), the device a run-time choice ([`Device`]). [`Engine`] is a plain
//! handle, `Clone + Send + Sync`; see its methods for streaming, chat, scoring and planning. To run on a backend of
//! your own, implement [`backend::Backend`] and call [`EngineBuilder::build_with`].

mod device;

pub use device::{Device, DeviceInfo, DeviceStatus};

pub use engine_core::backend::{CacheFormat, Capabilities, DType};
pub use engine_core::config::ModelConfig;
pub use engine_core::engine::{
    Chunk, DraftReport, Engine, EngineBuilder, FinishReason, Finished, Generation, LogitChunk, LogitStream, Prompt,
    RequestError, ScoreOptions, ScoreReport, Timings, TokenScore, TokenStream, Usage,
};
pub use engine_core::model::LoadProgress;
pub use engine_core::plan::{MemoryPlan, PlanClass, PlanRequest, WeightLine};
pub use engine_core::quant::{Precision, PrecisionPolicy, WeightClass, WeightFormat};
pub use engine_core::runner::RunnerInfo;
pub use engine_core::sampling::SamplingParams;
pub use engine_core::tokenizer::{ChatMessage, ChatOptions, DetokenizeStream, Role, Tokenizer};
pub use engine_core::{Error, Result};

/// Implementing a backend of your own.
pub use engine_core::backend;
/// Writing converted checkpoints.
pub use engine_core::convert;
/// Weights as typed values, as a backend is given them.
pub use engine_core::quant;
/// The scalar specification, as a backend.
pub use engine_core::reference;
/// Writing random checkpoints of any shape.
pub use engine_core::synth;

/// The code in README.md compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
