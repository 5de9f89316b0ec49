//! A conversation through the checkpoint's chat template, one line a turn:
//! `cargo run --release --example chat`, or `echo "What is a closure?" | cargo run --release --example chat`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{self, Write};

use bathysphere::{ChatMessage, Device, Engine, SamplingParams};

fn main() -> Result<(), Box<dyn Error>> {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-deepseek-v3-fp8");
    let engine = Engine::builder(model).device(Device::Auto).build()?;
    let params = SamplingParams { temperature: 0.6, max_tokens: Some(128), ..SamplingParams::default() };

    let mut messages = Vec::new();
    for line in io::stdin().lines() {
        messages.push(ChatMessage::user(line?));
        let mut answer = String::new();
        for chunk in engine.chat_stream(&messages, params.clone())? {
            let text = chunk?.text.unwrap_or_default();
            print!("{text}");
            io::stdout().flush()?;
            answer.push_str(&text);
        }
        println!();
        messages.push(ChatMessage::assistant(answer));
    }
    Ok(())
}
