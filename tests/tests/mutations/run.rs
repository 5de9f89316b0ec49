//! Running one case and counting outcomes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use bathysphere::convert::{ConvertOptions, convert_checkpoint};
use bathysphere::{
    ChatMessage, Device, Engine, Error, MemoryPlan, ModelConfig, PlanRequest, Precision, RequestError, SamplingParams,
    ScoreOptions,
};
use conformance::golden::model_dir;
use engine_core::tokenizer::{ChatOptions, ChatTemplate, Tokenizer};
use engine_core::weights::Checkpoint;

/// The longest that a case may take, on a machine that is busy with other tests.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// One changed file of a checkpoint.
pub(crate) struct Case {
    /// The checkpoint.
    base: PathBuf,
    /// What was changed.
    name: String,
    /// The file.
    file: String,
    /// Its new content.
    content: Content,
    /// An error must contain one of these.
    culprits: Vec<String>,
}

/// What becomes of a file.
pub(crate) enum Content {
    /// It is not there.
    Removed,
    /// Other bytes altogether.
    Bytes(Vec<u8>),
    /// These bytes, then zeros up to a length; takes no room on the disk.
    Sparse(Vec<u8>, usize),
    /// The original with some bytes replaced.
    Patched(Vec<(usize, Vec<u8>)>),
}

impl Case {
    pub(crate) fn new(file: &str, name: impl Into<String>, content: Content) -> Self {
        let name = format!("{file}: {}", name.into());
        Self { base: model_dir("fp8"), name, file: file.to_owned(), content, culprits: vec![file.to_owned()] }
    }

    /// Of another checkpoint than the tiny FP8 model.
    pub(crate) fn of(mut self, base: &Path) -> Self {
        self.base = base.to_owned();
        self
    }

    /// Also accepts an error that names `culprit`.
    pub(crate) fn or_named(mut self, culprit: &str) -> Self {
        self.culprits.push(culprit.to_owned());
        self
    }
}

/// A file of the tiny model.
pub(crate) fn original(file: &str) -> Vec<u8> {
    fs::read(model_dir("fp8").join(file)).unwrap()
}

static ORIGINAL_CONFIG: LazyLock<ModelConfig> = LazyLock::new(|| ModelConfig::from_dir(&model_dir("fp8")).unwrap());

/// How a case may end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The change does not reach the parsed configuration.
    Unchanged,
    /// Text was encoded and rendered.
    Read,
    /// An error, before the first token.
    Refused,
    /// It built, and its logits are no numbers.
    NoToken,
    /// Two tokens came out.
    Generated,
}

/// Outcomes counted, failures collected.
#[derive(Default)]
pub(crate) struct Tally {
    num_cases: usize,
    counts: BTreeMap<Outcome, usize>,
    failures: Vec<String>,
}

impl Tally {
    pub(crate) fn run(&mut self, case: Case) {
        let Case { base, name, file, content, culprits } = case;
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        link_model(&base, dir.path(), &file, content);
        let path = dir.path().to_owned();
        let number = self.num_cases;
        self.num_cases += 1;
        let (sender, receiver) = channel();
        let thread =
            thread::spawn(move || sender.send(catch_unwind(AssertUnwindSafe(|| attempt(&path, &file, number)))));
        let failure = match receiver.recv_timeout(TIME_LIMIT) {
            Err(_) => Some("hangs".to_owned()),
            Ok(Err(_)) => Some("panics".to_owned()),
            Ok(Ok(Err(Error::Request(RequestError::Stopped)))) => Some("ends the engine's thread".to_owned()),
            Ok(Ok(Err(error))) => {
                let text = error.to_string();
                *self.counts.entry(Outcome::Refused).or_default() += 1;
                (!culprits.iter().any(|culprit| text.contains(culprit))).then(|| format!("names no culprit: {text}"))
            }
            Ok(Ok(Ok(outcome))) => {
                *self.counts.entry(outcome).or_default() += 1;
                None
            }
        };
        match failure {
            Some(failure) => self.failures.push(format!("{name}: {failure}")),
            None => thread.join().unwrap().unwrap(),
        }
    }

    /// Prints the counts and fails with whatever went wrong; `at_least` guards against a list of cases that ran dry.
    pub(crate) fn finish(self, at_least: usize) {
        println!("{:?}", self.counts);
        assert!(self.failures.is_empty(), "{} failures: {:#?}", self.failures.len(), self.failures);
        assert!(self.num_cases >= at_least, "only {} cases", self.num_cases);
    }
}

/// The model's files, linked, except for the changed one.
fn link_model(base: &Path, dir: &Path, changed: &str, content: Content) {
    for entry in fs::read_dir(base).unwrap() {
        let from = entry.unwrap().path();
        let to: PathBuf = dir.join(from.file_name().unwrap());
        if to.file_name().unwrap() != changed && fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).unwrap();
        }
    }
    let to = dir.join(changed);
    match content {
        Content::Removed => {}
        Content::Bytes(bytes) => fs::write(to, bytes).unwrap(),
        Content::Sparse(bytes, len) => {
            let mut file = File::create(to).unwrap();
            file.write_all(&bytes).unwrap();
            file.set_len(len as u64).unwrap();
        }
        Content::Patched(patches) => {
            fs::copy(base.join(changed), &to).unwrap();
            let mut file = File::options().write(true).open(to).unwrap();
            for (at, bytes) in patches {
                file.seek(SeekFrom::Start(at as u64)).unwrap();
                file.write_all(&bytes).unwrap();
            }
        }
    }
}

/// Everything a program does with a checkpoint; the slow parts for some of the cases only.
fn attempt(dir: &Path, changed: &str, number: usize) -> Result<Outcome, Error> {
    let config = ModelConfig::from_dir(dir)?;
    if changed.ends_with("config.json") && changed != "tokenizer_config.json" && config == *ORIGINAL_CONFIG {
        return Ok(Outcome::Unchanged);
    }
    let has_mtp = Checkpoint::open(dir)?.check(&config)?.has_mtp;
    let plan = MemoryPlan::new(&config, &PlanRequest::new(&config));
    assert!(plan.weight_bytes > 0 && !plan.to_string().is_empty());
    if changed.contains("tokenizer") {
        use_text(dir)?;
        if !number.is_multiple_of(4) {
            return Ok(Outcome::Read);
        }
    }
    if changed.contains("safetensors") && number.is_multiple_of(8) {
        convert(dir)?;
    }
    let builder = Engine::builder(dir).device(Device::Cpu).max_num_seqs(1).max_num_batched_tokens(16);
    let engine = builder.load_mtp(has_mtp).build()?;
    let score = engine.score(&[5, 6], ScoreOptions { drafts: has_mtp, window: None })?;
    assert_eq!(score.tokens.len(), 1);
    let params = || SamplingParams { max_tokens: Some(2), ignore_eos: true, ..SamplingParams::greedy() };
    match engine.generate(vec![5, 6], params()) {
        Err(Error::Sampling(_)) => return Ok(Outcome::NoToken),
        // One token where the changed window holds no more.
        generation => assert!((1..=2).contains(&generation?.token_ids.len())),
    }
    if changed.contains("tokenizer") && engine.tokenizer().is_ok() {
        engine.generate("In the beginning", params())?;
    }
    Ok(Outcome::Generated)
}

/// To the format that looks at every value. What cannot be converted leaves nothing behind.
fn convert(dir: &Path) -> Result<(), Error> {
    let output = dir.join("converted");
    let options = ConvertOptions { policy: Precision::Int4.into() };
    let result = convert_checkpoint(dir, &output, &options, &mut |_| {});
    let left = fs::read_dir(dir).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(left, usize::from(result.is_ok()), "{}", dir.display());
    result.map(drop)
}

/// Text to ids and back, and a conversation.
fn use_text(dir: &Path) -> Result<(), Error> {
    if let Some(tokenizer) = Tokenizer::from_dir(dir)? {
        for text in ["", "In the beginning", "fn main() {}\n\n\t  é🙂<｜User｜>"] {
            let ids = tokenizer.encode(text, true)?;
            tokenizer.decode(&ids, true);
        }
    }
    if let Some(template) = ChatTemplate::from_dir(dir)? {
        template.render(&[ChatMessage::user("Hello")], &ChatOptions::default())?;
    }
    Ok(())
}
