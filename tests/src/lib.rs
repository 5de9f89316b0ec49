//! The conformance suite: what every backend must do, held against what was not written for it.
//!
//! * [`oracle`]: every operation in f64, straight from the formulas. The reference backend is held against it.
//! * [`cases`]: the cases, as data, generic over [`Backend`](engine_core::backend::Backend).
//! * [`harness`]: seeded inputs, guarded memory, tolerances with their reasons, the report.
//! * `ascend`: what is special to that backend: what it refuses, goldens in INT8, its operators counted.
//! * [`faulty`]: a backend with one fault, to show that the suite finds it.
//! * [`gpu`]: what every GPU backend is checked for, whichever the vendor.
//! * [`group`]: what the ranks of a group owe each other.
//! * [`gpu_runtime`]: what a GPU vendor's runtime promises, below the ops.
//! * [`capture`]: decode steps that are replayed, held against ones that are launched; [`counted`]: what both ask for.
//! * [`mod@bench`]: how fast a device is, against what its memory and its matrix units allow.
//! * [`golden`]: reference values of the tiny model, for the end-to-end tests.
//!
//! A backend takes part with ten lines (`tests/reference.rs`, `tests/cpu.rs`): build it, state its
//! [`Profile`](harness::Profile), call [`run_all`](harness::run_all), print the report, assert that it passed. What a
//! backend cannot run it declares as data; a declared refusal that does not happen fails like a wrong result.

#[cfg(feature = "ascend")]
pub mod ascend;
pub mod bench;
pub mod capture;
pub mod cases;
pub mod counted;
pub mod faulty;
pub mod golden;
pub mod gpu;
pub mod gpu_runtime;
pub mod group;
pub mod harness;
pub mod oracle;
