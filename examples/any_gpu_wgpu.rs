//! Any GPU that speaks Vulkan, Metal or DirectX 12:
//! `cargo run --release --features wgpu --example any_gpu_wgpu -- 0`.
//!
//! The number is an adapter's, from the list this prints; without one the best adapter runs. A second argument is another
//! checkpoint's directory.
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::time::Instant;

use bathysphere::{Device, DeviceStatus, Engine, SamplingParams};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let wanted = args.next().map(|number| number.parse()).transpose()?;
    let model =
        args.next().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-deepseek-v3-fp8").into());

    let mut best = None;
    for info in Device::available().into_iter().filter(|info| info.name.starts_with("wgpu")) {
        match info.status {
            DeviceStatus::Available(capabilities) => {
                println!("{}: {} ({})", info.name, capabilities.device, capabilities.notes.join("; "));
                best = best.or(Some(info.name));
            }
            DeviceStatus::Unavailable { reason } => println!("{}: {reason}", info.name),
        }
    }
    let device = match (wanted, best) {
        (Some(number), _) => Device::Wgpu(Some(number)),
        (None, Some(name)) => name.parse()?,
        // The list has said why.
        (None, None) => return Ok(()),
    };

    let engine = Engine::builder(model).device(device).build()?;
    let params = SamplingParams { max_tokens: Some(48), ..SamplingParams::greedy() };
    let prompt = "And Moses said unto the people,";
    print!("\n{prompt}");
    let mut stream = engine.stream(prompt, params)?;
    // The first token also waits for the prompt: what follows is the speed of decoding.
    print!("{}", stream.next().transpose()?.and_then(|chunk| chunk.text).unwrap_or_default());
    let (begun, mut num_tokens) = (Instant::now(), 0);
    for chunk in stream {
        print!("{}", chunk?.text.unwrap_or_default());
        io::stdout().flush()?;
        num_tokens += 1;
    }
    println!("\n[{device}: {:.1} tokens per second]", f64::from(num_tokens) / begun.elapsed().as_secs_f64());
    Ok(())
}
