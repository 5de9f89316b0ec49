//! The backend's threads: a pool for many short parallel loops.
//!
//! A decode step is hundreds of loops of tens of microseconds each. The pool is made for that: the caller works too,
//! starting a loop neither allocates nor waits for sleeping threads, and a thread that finds no work looks out for the
//! next loop for a moment before it sleeps.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use engine_core::backend::{PrepareError, Unsupported};

/// A fixed number of threads, the caller of [`Threads::for_each`] being one of them.
#[derive(Debug)]
pub(crate) struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose loop runs; others wait for their turn.
    turn: Mutex<()>,
}

/// A loop's body.
type Task = dyn Fn(usize) + Sync;

/// The state of [`Shared::gate`], in one word so that entering a loop and closing it exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gate(u64);

impl Gate {
    /// Threads inside the loop, the caller not counted.
    const INSIDE: u64 = 0xFFFF_FFFF;
    /// Threads may enter.
    const OPEN: u64 = 1 << 32;
    /// No loop will come any more.
    const SHUT_DOWN: u64 = 1 << 33;
    /// The loop's number counts in steps of this.
    const NEXT: u64 = 1 << 34;

    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    fn number(self) -> u64 {
        self.0 / Self::NEXT
    }

    /// True if a thread whose last loop was number `last` has something to do.
    fn calls(self, last: u64) -> bool {
        self.has(Self::SHUT_DOWN) || (self.has(Self::OPEN) && self.number() != last)
    }
}

#[derive(Debug)]
struct Shared {
    gate: AtomicU64,
    /// The loop's body; written only while nobody is inside and the gate is closed.
    task: UnsafeCell<Option<*const Task>>,
    num_tasks: AtomicUsize,
    /// The next task to be taken.
    next: AtomicUsize,
    /// Threads asleep, or about to be.
    sleeping: AtomicUsize,
    /// What a task panicked with. Also the lock of both conditions.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// A loop was opened, or the pool is shut down.
    opened: Condvar,
    /// The last thread left a closed loop.
    left: Condvar,
}

// SAFETY: `task` is the only field that is not `Sync` by itself. It is written by the holder of `turn` while the gate
// is closed and nobody inside, and read by threads that are inside; the gate orders the two.
unsafe impl Sync for Shared {}
// SAFETY: the task pointer is only followed between opening and closing of a loop, whose caller waits for all threads.
unsafe impl Send for Shared {}

/// Rounds of looking for work, some tens of microseconds, before a thread sleeps.
const ROUNDS: usize = 2_000;

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
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            task: UnsafeCell::new(None),
            num_tasks: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            panic: Mutex::new(None),
            opened: Condvar::new(),
            left: Condvar::new(),
        });
        // Built first, so that a failure to start the n-th thread ends those before it.
        let mut threads = Self { shared, workers: Vec::new(), turn: Mutex::new(()) };
        for index in 1..num_threads {
            let shared = threads.shared.clone();
            let builder = std::thread::Builder::new().name(format!("bathysphere-cpu-{index}"));
            threads.workers.push(builder.spawn(move || shared.work()).map_err(|e| refuse(e.to_string()))?);
        }
        Ok(threads)
    }

    /// Number of threads.
    pub(crate) fn len(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task` for every number below `num_tasks`, on any thread and in any order, and waits for all of them.
    /// A task must not start a loop of its own.
    ///
    /// # Panics
    /// With what a task panicked with.
    pub(crate) fn for_each(&self, num_tasks: usize, task: impl Fn(usize) + Sync) {
        if num_tasks <= 1 || self.workers.is_empty() {
            (0..num_tasks).for_each(task);
            return;
        }
        let turn = ignore_poison(self.turn.lock());
        self.shared.open(num_tasks, &task);
        let mine = catch_unwind(AssertUnwindSafe(|| self.shared.take_tasks(&task)));
        self.shared.close();
        let theirs = ignore_poison(self.shared.panic.lock()).take();
        drop(turn);
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.gate.fetch_or(Gate::SHUT_DOWN, Ordering::SeqCst);
        self.shared.wake();
        for worker in self.workers.drain(..) {
            // A worker catches its tasks' panics; there is nothing to learn from its end.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn gate(&self, order: Ordering) -> Gate {
        Gate(self.gate.load(order))
    }

    /// Lets the threads in. The holder of `turn` calls this and [`Shared::close`] before `task` ends.
    fn open(&self, num_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.next.store(0, Ordering::Relaxed);
        self.num_tasks.store(num_tasks, Ordering::Relaxed);
        let task = std::ptr::from_ref(task);
        // SAFETY: only the lifetime changes; `close` returns when nobody follows the pointer any more.
        let task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const Task>(task) };
        // SAFETY: the gate is closed and nobody inside, so nobody reads.
        unsafe { *self.task.get() = Some(task) };
        self.gate.fetch_add(Gate::NEXT | Gate::OPEN, Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        // Whoever is about to sleep holds the lock until it does.
        drop(ignore_poison(self.panic.lock()));
        self.opened.notify_all();
    }

    /// Lets no one in any more and waits for those inside. Threads that never came are not waited for.
    fn close(&self) {
        self.gate.fetch_and(!Gate::OPEN, Ordering::AcqRel);
        for _ in 0..ROUNDS {
            if !self.gate(Ordering::Acquire).has(Gate::INSIDE) {
                return;
            }
            std::hint::spin_loop();
        }
        let mut lock = ignore_poison(self.panic.lock());
        while self.gate(Ordering::Acquire).has(Gate::INSIDE) {
            lock = ignore_poison(self.left.wait(lock));
        }
    }

    /// Runs tasks until none is left.
    fn take_tasks(&self, task: &(dyn Fn(usize) + Sync)) {
        let num_tasks = self.num_tasks.load(Ordering::Relaxed);
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= num_tasks {
                return;
            }
            task(index);
        }
    }

    /// A worker's life.
    fn work(&self) {
        let mut last = 0;
        while let Some(number) = self.enter(last) {
            last = number;
            // SAFETY: this thread is inside, so the task stands in its cell and the caller waits for us.
            let task = unsafe { (*self.task.get()).map(|task| &*task) };
            let outcome = catch_unwind(AssertUnwindSafe(|| task.map(|task| self.take_tasks(task))));
            if let Err(panic) = outcome {
                // No further task is of use.
                self.next.store(usize::MAX / 2, Ordering::Relaxed);
                ignore_poison(self.panic.lock()).get_or_insert(panic);
            }
            let before = Gate(self.gate.fetch_sub(1, Ordering::AcqRel));
            if !before.has(Gate::OPEN) && before.0 & Gate::INSIDE == 1 {
                drop(ignore_poison(self.panic.lock()));
                self.left.notify_all();
            }
        }
    }

    /// Waits for a loop after number `last` and enters it; `None` when the pool is shut down.
    fn enter(&self, last: u64) -> Option<u64> {
        let mut round = 0;
        loop {
            let gate = self.gate(Ordering::Acquire);
            if gate.has(Gate::SHUT_DOWN) {
                return None;
            }
            if gate.calls(last) {
                if self.gate.compare_exchange(gate.0, gate.0 + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    return Some(gate.number());
                }
            } else if round < ROUNDS {
                round += 1;
                std::hint::spin_loop();
            } else {
                self.sleep(last);
                round = 0;
            }
        }
    }

    /// Sleeps until there may be something to do.
    fn sleep(&self, last: u64) {
        let lock = ignore_poison(self.panic.lock());
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate(Ordering::SeqCst);
        // What opened before `sleeping` was raised is seen here; what opens after sees `sleeping`.
        if !gate.calls(last) {
            drop(ignore_poison(self.opened.wait(lock)));
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Locks guard no invariant that a panic could break: tasks never run under one.
fn ignore_poison<'a, T>(lock: Result<MutexGuard<'a, T>, PoisonError<MutexGuard<'a, T>>>) -> MutexGuard<'a, T> {
    lock.unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_task_runs_once() {
        for num_threads in [1, 2, 3, 8] {
            let threads = Threads::new(num_threads).unwrap();
            assert_eq!(threads.len(), num_threads);
            for num_tasks in (0..40).chain([1000]) {
                let counts: Vec<AtomicUsize> = (0..num_tasks).map(|_| AtomicUsize::new(0)).collect();
                threads.for_each(num_tasks, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{num_tasks} tasks");
            }
        }
    }

    #[test]
    fn many_short_loops_from_many_callers() {
        let threads = Threads::new(3).unwrap();
        std::thread::scope(|scope| {
            for caller in 0..4 {
                let threads = &threads;
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let sum = AtomicUsize::new(0);
                        threads.for_each(5, |i| {
                            sum.fetch_add(i + caller, Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 10 + 5 * caller, "round {round}");
                        if round % 500 == 0 {
                            // Long enough for the workers to fall asleep.
                            std::thread::sleep(std::time::Duration::from_millis(2));
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn tasks_run_beside_each_other() {
        let threads = Threads::new(2).unwrap();
        let (meet, arrived) = (Condvar::new(), Mutex::new(0));
        // Each task waits for the other: one thread alone would wait for ever.
        threads.for_each(2, |_| {
            let mut count = arrived.lock().unwrap();
            *count += 1;
            meet.notify_all();
            while *count < 2 {
                count = meet.wait(count).unwrap();
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let threads = Threads::new(4).unwrap();
        for round in 0..50 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                threads.for_each(64, |i| assert_ne!(i, 13 + round % 7, "unlucky"));
            }));
            let panic = outcome.unwrap_err();
            assert!(panic.downcast_ref::<String>().is_some_and(|message| message.contains("unlucky")));
            let sum = AtomicUsize::new(0);
            threads.for_each(10, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }
}
