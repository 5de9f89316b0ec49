//! Engines inside an application: `cargo run --release --example embed_in_your_app`.
//!
//! An `Engine` is a handle, `Clone + Send + Sync`, on a thread of its own. Here two threads of the application share
//! one engine, whose steps then run both requests together, while a second engine in the same process runs another
//! precision. No async runtime is needed; a `TokenStream` also has a `poll_next` for applications that have one.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::thread;

use bathysphere::{Device, Engine, Generation, Precision, SamplingParams};

fn main() -> Result<(), Box<dyn Error>> {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
    let fp8 = Engine::builder(format!("{models}/tiny-deepseek-v3-fp8")).device(Device::Auto).build()?;
    let bf16 = Engine::builder(format!("{models}/tiny-deepseek-v3-fp8"))
        .device(Device::Auto)
        .precision(Precision::Bf16)
        .max_model_len(512)
        .build()?;

    let jobs = [(&fp8, "The LORD is my"), (&fp8, "And Moses said unto the people,"), (&bf16, "The LORD is my")];
    let threads = jobs.map(|(engine, prompt)| {
        let engine = engine.clone();
        thread::spawn(move || answer(&engine, prompt))
    });
    for ((_, prompt), thread) in jobs.into_iter().zip(threads) {
        let generation = thread.join().map_err(|_| "an application thread panicked")??;
        println!("{prompt}{}\n", generation.text.unwrap_or_default());
    }
    // Each engine's thread ends when its last handle is dropped.
    Ok(())
}

fn answer(engine: &Engine, prompt: &str) -> Result<Generation, bathysphere::Error> {
    match engine.generate(prompt, SamplingParams { max_tokens: Some(24), ..SamplingParams::greedy() }) {
        Err(error) if error.is_fatal() => {
            // The device is gone: this engine serves nobody any more, the application decides what to do.
            Err(error)
        }
        result => result,
    }
}
