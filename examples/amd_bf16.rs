//! bf16 on an AMD GPU: `cargo run --release --features rocm --example amd_bf16`.
//!
//! No ROCm is needed to build it; to run it, ROCm 6.0 or later. Arguments: a checkpoint's directory (FP8 ones are converted
//! while loading), and the device (`rocm:1` for the second one). Without a GPU it says why and ends well; over the emulated
//! runtime (`tools/with-emulator hip …`) it runs on the CPU, for tests.
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;

use bathysphere::{Device, DeviceStatus, Engine, Precision, SamplingParams};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let model =
        args.next().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-deepseek-v3-bf16").into());
    let device: Device = args.next().as_deref().unwrap_or("rocm").parse()?;

    let listed = Device::available().into_iter().find(|info| info.name == device.to_string());
    match listed.map(|info| info.status) {
        Some(DeviceStatus::Available(capabilities)) => println!("{device}: {}", capabilities.notes.join("; ")),
        Some(DeviceStatus::Unavailable { reason }) => {
            println!("{device} cannot be used: {reason}");
            return Ok(());
        }
        None => println!("{device} is not listed; opening it says why"),
    }

    // What devices without FP8 units (MI200, RDNA 3) compute with, and what any other takes as well.
    let engine = Engine::builder(model).device(device).precision(Precision::Bf16).max_model_len(512).build()?;
    let params = SamplingParams { max_tokens: Some(24), ..SamplingParams::greedy() };
    for prompt in ["The LORD is my", "A slice is a"] {
        println!("{prompt}{}", engine.generate(prompt, params.clone())?.text.unwrap_or_default());
    }
    Ok(())
}
