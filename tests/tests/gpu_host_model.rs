//! The tiny model on the GPU backend, on the host. What it computes is checked over emulated drivers (cuda.rs, rocm.rs).
#![allow(clippy::unwrap_used)]

use conformance::golden::{load_tiny, model_dir};
use engine_core::backend::SequenceStep;
use engine_core::quant::PrecisionPolicy;
use engine_core::runner::{StepOutput, StepRunner, WantedRows};
use gpu_common::{GpuBackend, GpuOptions};
use gpu_host::{HostOptions, HostRuntime};

/// Scratch memory grows with the largest step, and steps like those before take none.
#[test]
fn steady_decoding_allocates_nothing() {
    let runtime = HostRuntime::new(HostOptions::default());
    let ledger = runtime.ledger();
    let options = GpuOptions { waves_per_block: 2, ..GpuOptions::default() };
    let backend = GpuBackend::new(runtime, options).unwrap();
    let mut runner = load_tiny(backend, &model_dir("fp8"), &PrecisionPolicy::default()).unwrap();
    let block_tables = [[0, 1, 2, 3], [4, 5, 6, 7]];
    let mut decode = |context_len: usize| {
        let step = |block_table| SequenceStep { tokens: &[7], context_len, block_table };
        let steps = block_tables.each_ref().map(|table| step(table.as_slice()));
        let mut output = StepOutput::default();
        runner.step(&steps, WantedRows::logits(&[0, 1]), &mut output).unwrap();
        runner.draft(&[8, 9], WantedRows::logits(&[0, 1]), &mut output).unwrap();
        ledger.num_allocations()
    };
    let after_first = decode(0);
    // Longer sequences are cut into more parts.
    for context_len in [1, 2, 3, 63, 64, 65, 127, 128, 200, 254] {
        assert_eq!(decode(context_len), after_first, "a step at {context_len} allocated");
    }
}
