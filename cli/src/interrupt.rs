//! Ctrl-C: what it means depends on what the command is doing.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bathysphere::{Chunk, Error, TokenStream};

use crate::error::CliError;
use crate::output;

/// The exit code of a process that Ctrl-C ended, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// What a press does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Ends the process: nothing would be lost.
    Exit = 0,
    /// Asks the running work to stop; a second press ends the process.
    Stop = 1,
    /// Tells how to leave; a second press ends the process.
    Hint = 2,
}

/// Handles Ctrl-C for one command.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    phase: AtomicU8,
    requested: AtomicBool,
    /// The thread that waits for tokens.
    main: Thread,
}

/// Work that Ctrl-C stops; when this ends, Ctrl-C means what it meant before.
#[derive(Debug)]
pub(crate) struct Stoppable<'a> {
    interrupt: &'a Interrupt,
    phase_before: u8,
}

/// The next event of a generation.
#[derive(Debug)]
pub(crate) enum Event {
    Token(Chunk),
    Interrupted,
    End,
}

impl Interrupt {
    /// Takes over Ctrl-C. To be called once, by the thread that will wait.
    pub(crate) fn install() -> Result<Self, CliError> {
        let shared = Arc::new(Shared {
            phase: AtomicU8::new(Phase::Exit as u8),
            requested: AtomicBool::new(false),
            main: thread::current(),
        });
        let handler = shared.clone();
        ctrlc::set_handler(move || handler.pressed())
            .map_err(|error| CliError::Stream(std::io::Error::other(error)))?;
        Ok(Self { shared })
    }

    /// From now on Ctrl-C asks to stop.
    pub(crate) fn stoppable(&self) -> Stoppable<'_> {
        self.shared.requested.store(false, Ordering::SeqCst);
        let phase_before = self.shared.phase.swap(Phase::Stop as u8, Ordering::SeqCst);
        Stoppable { interrupt: self, phase_before }
    }

    /// From now on a first Ctrl-C shows a hint and a second ends the process: for an idle prompt.
    pub(crate) fn at_prompt(&self) {
        self.shared.phase.store(Phase::Hint as u8, Ordering::SeqCst);
        self.shared.requested.store(false, Ordering::SeqCst);
    }
}

impl Stoppable<'_> {
    /// True once Ctrl-C was pressed.
    pub(crate) fn is_requested(&self) -> bool {
        self.interrupt.shared.requested.load(Ordering::SeqCst)
    }

    /// Waits for the next token, or for Ctrl-C: also in the middle of a long prefill.
    pub(crate) fn next(&self, stream: &mut TokenStream) -> Result<Event, Error> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if self.is_requested() {
                return Ok(Event::Interrupted);
            }
            match stream.poll_next(&mut context) {
                Poll::Ready(None) => return Ok(Event::End),
                Poll::Ready(Some(item)) => return item.map(Event::Token),
                Poll::Pending => thread::park(),
            }
        }
    }
}

impl Drop for Stoppable<'_> {
    fn drop(&mut self) {
        self.interrupt.shared.phase.store(self.phase_before, Ordering::SeqCst);
    }
}

impl Shared {
    fn pressed(&self) {
        let phase = self.phase.load(Ordering::SeqCst);
        let is_second = self.requested.swap(true, Ordering::SeqCst);
        if phase == Phase::Exit as u8 || is_second {
            process::exit(EXIT_INTERRUPTED);
        }
        if phase == Phase::Hint as u8 {
            output::note("\n(Ctrl-C again or /exit to leave)");
        }
        self.main.unpark();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
