//! The backend's threads.

use engine_core::backend::{PrepareError, Unsupported};
use rayon::prelude::*;

/// A fixed set of worker threads.
#[derive(Debug)]
pub(crate) struct Threads {
    pool: rayon::ThreadPool,
}

impl Threads {
    /// Starts `num_threads` threads.
    pub(crate) fn new(num_threads: usize) -> Result<Self, PrepareError> {
        let refuse = |reason: String| {
            PrepareError::Unsupported(Unsupported {
                backend: "cpu".into(),
                what: format!("{num_threads} threads"),
                reason,
                action: "ask for at least one and at most as many as the machine has".into(),
            })
        };
        if num_threads == 0 {
            return Err(refuse("a backend needs a thread to run on".into()));
        }
        let builder = rayon::ThreadPoolBuilder::new()
            .num_threads(num_threads)
            .thread_name(|index| format!("bathysphere-cpu-{index}"));
        Ok(Self { pool: builder.build().map_err(|e| refuse(e.to_string()))? })
    }

    /// Number of threads.
    pub(crate) fn len(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `task` for every number below `num_tasks`, on any thread and in any order, and waits for all of them.
    pub(crate) fn for_each(&self, num_tasks: usize, task: impl Fn(usize) + Sync + Send) {
        match num_tasks {
            0 => {}
            1 => task(0),
            _ => self.pool.install(|| (0..num_tasks).into_par_iter().for_each(task)),
        }
    }
}
