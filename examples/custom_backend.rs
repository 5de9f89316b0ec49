//! A backend of your own, outside this repository: `cargo run --release --example custom_backend`.
//!
//! This one does an operation differently and leaves the others to the reference: its router counts the tokens that
//! each expert is given. The graph, the scheduler and the engine do not notice.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::{Arc, Mutex};

use bathysphere::backend::{ActTensor, Backend, Routing, StepError, delegate_backend};
use bathysphere::reference::{Numerics, ReferenceBackend};
use bathysphere::{Engine, SamplingParams};

/// Tokens per expert, over all layers and steps.
type Load = Arc<Mutex<Vec<u64>>>;

struct CountingBackend {
    inner: ReferenceBackend,
    load: Load,
}

type Buffer = <ReferenceBackend as Backend>::Buffer;
type Stream = <ReferenceBackend as Backend>::Stream;

impl Backend for CountingBackend {
    delegate_backend!(inner: ReferenceBackend; types, device, uncaptured, prepare, ops except [moe_gate]);

    /// The operation that differs.
    fn moe_gate(
        &self,
        stream: &mut Stream,
        gate: &Self::Gate,
        x: &ActTensor<Self>,
        routing: &mut Routing<Buffer>,
    ) -> Result<(), StepError> {
        self.inner.moe_gate(stream, gate, x, routing)?;
        let mut ids = Vec::new();
        routing.ids.read(&self.inner, stream, &mut ids)?;
        if let Ok(mut load) = self.load.lock() {
            for id in ids {
                let expert = id as usize;
                if load.len() <= expert {
                    load.resize(expert + 1, 0);
                }
                load[expert] += 1;
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let load = Load::default();
    let backend = CountingBackend { inner: ReferenceBackend::new(Numerics::default()), load: load.clone() };
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-deepseek-v3-fp8");
    let engine = Engine::builder(model).build_with(backend)?;
    let params = SamplingParams { max_tokens: Some(32), ..SamplingParams::greedy() };
    println!("{}\n", engine.generate("The LORD is my", params)?.text.unwrap_or_default());

    let load = load.lock().map_err(|_| "the engine's thread panicked")?;
    let most = load.iter().max().copied().unwrap_or(1);
    for (expert, num_tokens) in load.iter().enumerate() {
        println!("expert {expert:>2}  {num_tokens:>4}  {}", "#".repeat((40 * num_tokens / most) as usize));
    }
    Ok(())
}
