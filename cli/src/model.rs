//! Finding and loading the model.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bathysphere::{Device, Engine, EngineBuilder};

use crate::args::ModelArgs;
use crate::error::CliError;
use crate::output;

/// The model of this repository, which commands use unless told otherwise.
const OWN_MODEL: &str = "tiny-deepseek-v3-fp8";

/// A loaded engine and how long that took.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) engine: Engine,
    pub(crate) duration: Duration,
}

/// What the flags say, before anything is opened.
pub(crate) fn builder(args: &ModelArgs) -> Result<EngineBuilder<Device>, CliError> {
    let mut builder = Engine::builder(find(args.model.as_deref())?)
        .device(args.device)
        .precision(args.precision.clone())
        .kv_cache_dtype(args.kv_cache_dtype)
        .tensor_parallel_size(args.tensor_parallel_size);
    if let Some(max_model_len) = args.max_model_len {
        builder = builder.max_model_len(max_model_len);
    }
    Ok(builder)
}

/// Loads with a progress bar on a terminal.
pub(crate) fn load(builder: EngineBuilder<Device>) -> Result<Loaded, CliError> {
    let start = Instant::now();
    let bar = output::progress_bar("loading {bar:32} {pos}/{len} layers");
    let shown = bar.clone();
    let builder = builder.progress(move |progress| {
        shown.set_length(progress.total as u64);
        shown.set_position(progress.done as u64);
    });
    let result = builder.build();
    bar.finish_and_clear();
    Ok(Loaded { engine: result?, duration: start.elapsed() })
}

/// The directory that was asked for, or the repository's own model: above the current directory, above the executable,
/// or where this command was compiled.
pub(crate) fn find(model: Option<&Path>) -> Result<PathBuf, CliError> {
    if let Some(dir) = model {
        return Ok(dir.to_owned());
    }
    let starts = [
        env::current_dir().ok(),
        env::current_exe().ok().and_then(|file| Some(file.parent()?.to_owned())),
        Some(PathBuf::from(env!("CARGO_MANIFEST_DIR"))),
    ];
    let tried: Vec<PathBuf> = starts.into_iter().flatten().collect();
    let found = tried.iter().find_map(|start| find_above(start));
    found.ok_or(CliError::NoModel { name: OWN_MODEL, tried })
}

fn find_above(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|dir| dir.join("models").join(OWN_MODEL)).find(|dir| dir.join("config.json").is_file())
}
