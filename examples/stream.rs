//! Prints tokens as they come, with their log-probabilities, and stops early by dropping the stream:
//! `cargo run --release --example stream`.
#![allow(clippy::print_stdout)]

use std::error::Error;

use bathysphere::{Device, Engine, SamplingParams};

fn main() -> Result<(), Box<dyn Error>> {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-deepseek-v3-fp8");
    let engine = Engine::builder(model).device(Device::Auto).build()?;

    let params = SamplingParams { temperature: 0.6, seed: Some(7), logprobs: Some(0), ..SamplingParams::default() };
    let mut stream = engine.stream("The ownership system in Rust", params)?;
    let mut num_sentences = 0;
    while let Some(chunk) = stream.next().transpose()? {
        let text = chunk.text.unwrap_or_default();
        println!("{:>6}  {:>8.3}  {text:?}", chunk.token_id, chunk.logprob.unwrap_or(f32::NAN));
        num_sentences += text.matches(['.', '!', '?']).count();
        if num_sentences >= 2 {
            break;
        }
    }
    // Dropping the stream cancels the request; the engine frees its cache with the next step and serves others.
    drop(stream);

    let params = SamplingParams { max_tokens: Some(8), ..SamplingParams::greedy() };
    let after = engine.generate("And Moses said unto the people,", params)?;
    println!("still serving: {:?}", after.text.unwrap_or_default());
    Ok(())
}
