//! FP8 on an AMD GPU: `cargo run --release --features rocm --example amd_fp8`.
//!
//! No ROCm is needed to build it; to run it, ROCm 6.0 or later. Arguments: a checkpoint's directory, and the device (`rocm:1`
//! for the second one). Without a GPU it says why and ends well; over the emulated runtime (`tools/with-emulator hip …`) it
//! runs on the CPU, for tests.
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;

use bathysphere::{Device, DeviceStatus, Engine, Precision, SamplingParams};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let model =
        args.next().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-deepseek-v3-fp8").into());
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

    // FP8 weights stay FP8, in the device's own variant of e4m3: MI300 multiplies FNUZ, MI350 and RDNA 4 OCP. The notes above
    // say which; a device without FP8 units widens weights while it multiplies.
    let engine = Engine::builder(model).device(device).precision(Precision::Fp8).max_model_len(512).build()?;
    let params = SamplingParams { max_tokens: Some(24), ..SamplingParams::greedy() };
    let prompts = ["The LORD is my", "In the beginning", "A slice is a"];
    // Requests of one engine run in one batch.
    let streams = prompts.map(|prompt| engine.stream(prompt, params.clone()));
    for (prompt, stream) in prompts.into_iter().zip(streams) {
        let answer = stream?.collect_all()?;
        println!("{prompt}{}", answer.text.unwrap_or_default());
    }
    Ok(())
}
