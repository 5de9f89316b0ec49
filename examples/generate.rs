//! Continues a prompt: `cargo run --release --example generate -- "The LORD is my"`.
//!
//! A second argument is another checkpoint's directory.
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;

use bathysphere::{Device, Engine, SamplingParams};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let prompt = args.next().unwrap_or_else(|| "The LORD is my".to_owned());
    let model =
        args.next().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-deepseek-v3-fp8").into());

    let engine = Engine::builder(model).device(Device::Auto).build()?;
    let params = SamplingParams { max_tokens: Some(48), ..SamplingParams::greedy() };
    let answer = engine.generate(prompt.as_str(), params)?;

    println!("{prompt}{}", answer.text.unwrap_or_default());
    println!("[{:?} after {} tokens]", answer.finish_reason, answer.usage.completion_tokens);
    Ok(())
}
