//! One model on several devices: `cargo run --release --example several_devices`.
//!
//! Arguments: a checkpoint's directory, the first device, how many. Without any, the small model of this repository runs on
//! two halves of the CPU, which shows the way and wins nothing; `cuda 8` is what the family's largest models take.
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;

use bathysphere::{Device, Engine, SamplingParams};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let model =
        args.next().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-deepseek-v3-bf16").into());
    let device: Device = args.next().as_deref().unwrap_or("cpu").parse()?;
    let num_devices: usize = args.next().as_deref().unwrap_or("2").parse()?;
    let builder = |size| Engine::builder(&model).device(device).max_model_len(512).tensor_parallel_size(size);

    // Before anything is loaded: what one device would have to hold, and what each of them will.
    let (alone, each) = (builder(1).plan()?, builder(num_devices).plan()?);
    println!("weights: {} bytes on one device, {} on each of {num_devices}", alone.weight_bytes, each.weight_bytes);

    let engine = builder(num_devices).build()?;
    let prompt = "In the beginning";
    let params = SamplingParams { max_tokens: Some(24), ..SamplingParams::greedy() };
    println!("{prompt}{}", engine.generate(prompt, params)?.text.unwrap_or_default());
    Ok(())
}
