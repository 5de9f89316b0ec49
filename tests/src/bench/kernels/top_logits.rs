//! The highest logits of rows, and the highest one alone.

use engine_core::Error;
use engine_core::backend::{Backend, MAX_TOP_LOGITS, Tensor, TopLogits};

use super::super::Scale;
use super::super::report::{Cost, Row};
use super::super::timing::seconds_per_run;
use super::KernelBench;

/// Rows of the heads of DeepSeek-V3 and Moonlight.
const VOCABS: [(&str, usize); 2] = [("v3", 129_280), ("moonlight", 163_840)];
const TINY_VOCABS: [(&str, usize); 1] = [("tiny", 512)];

impl<B: Backend> KernelBench<'_, B> {
    /// Nothing of top logits where a device does not find them.
    pub(super) fn top_logits(&mut self) -> Result<Vec<Row>, Error> {
        let (vocabs, batches): (&[(&str, usize)], &[usize]) = match self.options.scale {
            Scale::Full | Scale::Quick => (&VOCABS, &[1, 32, 128]),
            Scale::Tiny => (&TINY_VOCABS, &[1, 3]),
        };
        let mut measured = Vec::new();
        for (name, vocab) in vocabs {
            for batch in batches {
                measured.extend(self.choices(name, (*batch, *vocab))?);
            }
        }
        Ok(measured)
    }

    fn choices(&mut self, name: &str, (batch, vocab): (usize, usize)) -> Result<Vec<Row>, Error> {
        let values: Vec<f32> = (0..batch * vocab).map(|_| 3.0 * self.random.normal()).collect();
        let (backend, runs, limits) = (self.backend, self.runs(1), self.options.limits);
        let logits = Tensor::from_slice(backend, &mut self.stream, vocab, &values)?;
        let scales = Tensor::from_slice(backend, &mut self.stream, 1, &vec![1.0; batch])?;
        let mut best = Tensor::alloc(backend, batch, 1)?;
        let mut top = Tensor::alloc(backend, batch, TopLogits::num_words(MAX_TOP_LOGITS))?;
        let row = |what: &str, seconds: f64| {
            let cost = Cost { bytes: (batch * vocab * size_of::<f32>()) as f64, fp8_flop: 0.0, bf16_flop: 0.0 };
            Row::new(&format!("{what}, {name} head"), (batch, 0), seconds, cost, limits)
        };
        let seconds = seconds_per_run(backend, &mut self.stream, runs, |stream, _| {
            backend.argmax(stream, &logits, vocab, &mut best)
        })?;
        let mut measured = vec![row("argmax", seconds)];
        if backend.finds_top_logits() {
            let seconds = seconds_per_run(backend, &mut self.stream, runs, |stream, _| {
                backend.top_logits(stream, &logits, &scales, vocab, &mut top)
            })?;
            measured.push(row("256 top logits", seconds));
        }
        Ok(measured)
    }
}
