//! Groups of devices that sum over all of them, through the vendor's library of collectives.
//!
//! [`open_group`] opens devices, makes a communicator for each, all of one process, and tries them out before anybody relies
//! on them: the first sum of a kind connects the devices, which takes long, waits for all ranks on the host, and fails where
//! a machine is set up badly.

mod library;
mod trial;

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use engine_core::backend::{Rank, Unavailable};

use library::{Communicator, Loaded};

use crate::backend::GpuBackend;
use crate::options::GpuOptions;
use crate::runtime::GpuRuntime;

/// Values of the sums that are tried: few and many, which go different ways.
const TRIED_COUNTS: [usize; 2] = [64, 1 << 20];

/// How long the last of a group waits until communicators that are being aborted are gone. A library may never come back from
/// that; then they are left to the end of the process.
const ABORT_TIME: Duration = Duration::from_secs(10);

/// A vendor's library of collectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectiveLibrary {
    /// As its maker calls it.
    pub name: &'static str,
    /// Names and places, in the order in which they are tried.
    pub files: &'static [&'static str],
    /// First version that has what is needed; 21000 is 2.10.
    pub min_version: i32,
}

/// What is missing of the library.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Absence {
    /// No file of its names can be loaded.
    Library,
    /// A function.
    Symbol(&'static str),
    /// It is too old.
    Old { found: i32 },
    /// It is there and does not start.
    Failed(CollectiveError),
}

/// A collective that did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CollectiveError {
    /// A function of the library failed.
    #[error("{function} answered {status} ({words}); NCCL_DEBUG=WARN in the environment says more")]
    Failed { function: &'static str, status: i32, words: String },
    /// The communicator was aborted.
    #[error("the group's communicators were aborted")]
    Aborted,
}

impl CollectiveLibrary {
    fn version(version: i32) -> String {
        format!("{}.{}", version / 10_000, version / 100 % 100)
    }

    /// An absence, for users.
    fn describe(&self, absence: &Absence) -> String {
        let Self { name, files, min_version } = self;
        let needed = Self::version(*min_version);
        match absence {
            Absence::Library => {
                format!("no {name}: none of {} can be loaded; install {name} {needed} or later", files.join(", "))
            }
            Absence::Symbol(function) => {
                format!("{name} has no function {function}; install {name} {needed} or later")
            }
            Absence::Old { found } => {
                // Before 2.9 the major version was counted in thousands.
                let found = if *found < 10_000 { found / 1000 * 10_000 + found % 1000 } else { *found };
                let found = Self::version(found);
                format!("{name} is version {found}, needed is {needed} or later; install a newer one")
            }
            Absence::Failed(error) => format!("{name} does not start: {error}"),
        }
    }
}

/// Opens several devices as the ranks of one group, in this order. One device is a group of its own and needs no library.
///
/// # Errors
/// Why there is no such group: a device that cannot be used or is named twice, no library, one that is too old, or one that
/// does not sum right.
pub fn open_group<R: GpuRuntime>(
    library: &CollectiveLibrary,
    (vendor, ordinals): (&str, &[u32]),
    open: impl Fn(u32) -> Result<(R, GpuOptions), Unavailable>,
) -> Result<Vec<GpuBackend<R>>, Unavailable> {
    Unavailable::check_group(vendor, ordinals)?;
    let unavailable = |reason: String| Unavailable::of_group(vendor, ordinals, reason);
    let opened: Vec<(R, GpuOptions)> = ordinals.iter().map(|ordinal| open(*ordinal)).collect::<Result<_, _>>()?;
    let communicators = if ordinals.len() > 1 {
        let runtimes: Vec<&R> = opened.iter().map(|(runtime, _)| runtime).collect();
        communicators(library, ordinals, &runtimes).map_err(unavailable)?.into_iter().map(Some).collect()
    } else {
        vec![None; ordinals.len()]
    };
    let ranks = Rank::group(ordinals.len());
    let aborting = Arc::new(Aborting::default());
    if let Some(rank) = ranks.first() {
        abort_on_failure(rank, &aborting, communicators.iter().flatten().map(Arc::downgrade).collect());
    }
    let members = communicators.into_iter().map(|communicator: Option<Arc<Communicator>>| {
        communicator.map(|communicator| Member { communicator, _aborting: aborting.clone() })
    });
    let opened = opened.into_iter().zip(ranks.into_iter().zip(members));
    let backend = |((runtime, options), member)| GpuBackend::in_group(runtime, options, member);
    opened.map(backend).collect::<Result<_, _>>().map_err(|error| unavailable(error.to_string()))
}

/// One for each runtime, tried out.
fn communicators<R: GpuRuntime>(
    library: &CollectiveLibrary,
    ordinals: &[u32],
    runtimes: &[&R],
) -> Result<Vec<Arc<Communicator>>, String> {
    let loaded = Loaded::open(library).map_err(|absence| library.describe(&absence))?;
    let version = CollectiveLibrary::version(loaded.version);
    let failed = |what: &str, reason: String| format!("{} {version} {what}: {reason}", library.name);
    let communicators = loaded.communicators(ordinals);
    let communicators = communicators.map_err(|error| failed("makes no communicators", error.to_string()))?;
    for count in TRIED_COUNTS {
        let tried = trial::sum(&loaded, runtimes, &communicators, count);
        tried.map_err(|error| failed(&format!("does not sum {count} values"), error.to_string()))?;
    }
    tracing::debug!(library = library.name, version, num_ranks = ordinals.len(), "communicators made");
    Ok(communicators)
}

/// A rank's communicator, and its share of what ends all of them. Backends and recorded work hold one each.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Given back before the group is.
    communicator: Arc<Communicator>,
    _aborting: Arc<Aborting>,
}

impl std::ops::Deref for Member {
    type Target = Communicator;

    fn deref(&self) -> &Communicator {
        &self.communicator
    }
}

/// Communicators that are being aborted, if any are. The last member of the group waits until that is done.
#[derive(Debug, Default)]
struct Aborting(Mutex<Option<Receiver<()>>>);

impl Drop for Aborting {
    fn drop(&mut self) {
        let aborting = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // The other end is gone, without a word, when all is done.
        if aborting.is_some_and(|done| done.recv_timeout(ABORT_TIME) == Err(RecvTimeoutError::Timeout)) {
            tracing::error!(
                seconds = ABORT_TIME.as_secs(),
                "communicators are still being aborted, and are left alone"
            );
        }
    }
}

/// Has every communicator aborted when a rank of the group fails, so that devices which wait for it come back.
///
/// In a thread of its own: the last communicator to end waits for recorded work that holds its collectives, and some of that
/// is held by the rank that fails.
fn abort_on_failure(rank: &Rank, aborting: &Arc<Aborting>, communicators: Vec<Weak<Communicator>>) {
    let aborting = aborting.clone();
    rank.on_failure(move || {
        let communicators: Vec<Arc<Communicator>> = communicators.iter().filter_map(Weak::upgrade).collect();
        let (is_busy, done) = channel();
        *aborting.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        let abort = move || {
            abort_all(&communicators);
            drop((communicators, is_busy));
        };
        if let Err(error) = std::thread::Builder::new().name("abort communicators".into()).spawn(abort) {
            tracing::error!(%error, "communicators could not be aborted: there is no thread to do it");
        }
    });
}

/// Has the devices of a group stop to wait for each other.
fn abort_all(communicators: &[Arc<Communicator>]) {
    for communicator in communicators {
        if let Err(error) = communicator.abort() {
            tracing::warn!(%error, "a communicator could not be aborted");
        }
    }
}
