//! Devices that fail, and an engine's thread that panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use bathysphere::backend::StepError;
use bathysphere::{Error, RequestError, ScoreOptions, TokenStream};

use crate::rig::{Fault, HANG, Rig, engine, greedy, prompt};

#[test]
fn a_panicking_thread_ends_every_stream_with_an_error_and_hangs_nobody() {
    let rig = Rig::default();
    let engine = engine(&rig);
    rig.hold();
    let streams: Vec<_> = (0..3).map(|i| engine.stream(prompt(20, i), greedy(50)).unwrap()).collect();
    let logits = engine.logits(&prompt(300, 0), false).unwrap();
    rig.fail_after(4, Fault::Panic);
    rig.release();
    for stream in streams {
        let last = stream.last().unwrap();
        assert!(matches!(last, Err(Error::Request(RequestError::Stopped))), "{last:?}");
    }
    assert!(matches!(logits.last(), Some(Err(Error::Request(RequestError::Stopped)))));
    let error = engine.generate(prompt(4, 0), greedy(1)).unwrap_err();
    assert!(matches!(error, Error::Request(RequestError::Stopped)) && error.is_fatal(), "{error}");
    assert!(matches!(engine.score(&[5, 6], ScoreOptions::default()), Err(Error::Request(RequestError::Stopped))));
    drop(engine);
}

#[test]
fn a_lost_device_is_reported_to_all_and_the_engine_is_stopped() {
    let rig = Rig::default();
    let engine = engine(&rig);
    rig.hold();
    let streams: Vec<_> = (0..3).map(|i| engine.stream(prompt(20, i), greedy(50)).unwrap()).collect();
    rig.fail_after(3, Fault::DeviceLost);
    rig.release();
    for stream in streams {
        let error = stream.collect_all().unwrap_err();
        assert!(matches!(error, Error::Step(StepError::DeviceLost { .. })) && error.is_fatal(), "{error}");
    }
    assert!(matches!(engine.generate(prompt(4, 0), greedy(1)), Err(Error::Request(RequestError::Stopped))));
}

/// Requests that came while the last step ran are in the channel, not yet in the schedule.
#[test]
fn what_is_queued_when_a_device_is_lost_ends_with_its_error() {
    let rig = Rig::default();
    let engine = engine(&rig);
    rig.hold();
    let running = engine.stream(prompt(20, 0), greedy(50)).unwrap();
    rig.wait_for_a_held_step();
    let queued: Vec<_> = (1..4).map(|i| engine.stream(prompt(20, i), greedy(50)).unwrap()).collect();
    let logits = engine.logits(&prompt(300, 0), false).unwrap();
    rig.fail_after(0, Fault::DeviceLost);
    rig.release();
    for stream in queued.into_iter().chain([running]) {
        let error = stream.collect_all().unwrap_err();
        assert!(matches!(error, Error::Step(StepError::DeviceLost { .. })), "{error}");
    }
    assert!(matches!(logits.last(), Some(Err(Error::Step(StepError::DeviceLost { .. })))));
}

#[test]
fn a_device_lost_while_scoring_ends_generations_too() {
    let rig = Rig::default();
    let engine = engine(&rig);
    rig.hold();
    let generation = engine.stream(prompt(20, 0), greedy(1000)).unwrap();
    let logits = engine.logits(&prompt(300, 0), false).unwrap();
    rig.fail_after(1, Fault::DeviceLost);
    rig.release();
    assert!(matches!(logits.last(), Some(Err(Error::Step(StepError::DeviceLost { .. })))));
    assert!(matches!(generation.collect_all(), Err(Error::Step(StepError::DeviceLost { .. }))));
}

#[test]
fn out_of_memory_fails_what_runs_and_the_engine_goes_on() {
    let rig = Rig::default();
    let engine = engine(&rig);
    let expected = engine.generate(prompt(20, 0), greedy(8)).unwrap().token_ids;
    rig.fail_after(2, Fault::OutOfMemory);
    let error = engine.generate(prompt(20, 0), greedy(8)).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::OutOfMemory { .. })) && !error.is_fatal(), "{error}");
    assert_eq!(engine.generate(prompt(20, 0), greedy(8)).unwrap().token_ids, expected);
    rig.fail_after(1, Fault::OutOfMemory);
    let error = engine.score(&prompt(600, 0), ScoreOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::OutOfMemory { .. })), "{error}");
    assert_eq!(engine.generate(prompt(20, 0), greedy(8)).unwrap().token_ids, expected);
}

/// A consumer that polls whenever it is woken, at once and on the thread that wakes.
struct Poller {
    stream: Mutex<Option<TokenStream>>,
    num_tokens: AtomicUsize,
    ended: Sender<Result<usize, Error>>,
}

impl Poller {
    fn start(stream: TokenStream) -> Receiver<Result<usize, Error>> {
        let (ended, receiver) = channel();
        Arc::new(Self { stream: Mutex::new(Some(stream)), num_tokens: AtomicUsize::new(0), ended }).wake();
        receiver
    }
}

impl Wake for Poller {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(self.clone());
        let mut guard = self.stream.lock().unwrap();
        while let Some(stream) = guard.as_mut() {
            let end = match stream.poll_next(&mut Context::from_waker(&waker)) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(_))) => {
                    self.num_tokens.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => Err(error),
                Poll::Ready(None) => Ok(self.num_tokens.load(Ordering::SeqCst)),
            };
            // Without its stream the poller is no longer kept alive by its own waker.
            *guard = None;
            let _ = self.ended.send(end);
        }
    }
}

#[test]
fn a_polling_consumer_gets_every_token_and_the_end() {
    let engine = engine(&Rig::default());
    let ends: Vec<_> = (0..4).map(|i| Poller::start(engine.stream(prompt(8, i), greedy(40)).unwrap())).collect();
    for end in ends {
        assert_eq!(end.recv_timeout(HANG).unwrap().unwrap(), 40);
    }
}

/// The consumer is woken by the end of the sender and looks at once: it must find the error, not an empty channel.
#[test]
fn a_polling_consumer_learns_that_the_engine_stopped() {
    for after in 0..4 {
        let rig = Rig::default();
        let engine = engine(&rig);
        rig.fail_after(after, Fault::Panic);
        let end = Poller::start(engine.stream(prompt(8, 0), greedy(40)).unwrap()).recv_timeout(HANG).unwrap();
        assert!(matches!(end, Err(Error::Request(RequestError::Stopped))), "{end:?}");
    }
}

/// Drops its stream, the last handle of an engine, when woken.
struct LastHandle {
    stream: Mutex<Option<TokenStream>>,
    dropped: Sender<bool>,
}

impl Wake for LastHandle {
    fn wake(self: Arc<Self>) {
        let stream = self.stream.lock().unwrap().take();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(stream))).is_ok();
        let _ = self.dropped.send(dropped);
    }
}

#[test]
fn the_last_handle_may_be_dropped_by_a_waker_on_the_engines_own_thread() {
    let rig = Rig::default();
    let engine = engine(&rig);
    rig.hold();
    let mut stream = engine.stream(prompt(8, 0), greedy(40)).unwrap();
    let (dropped, receiver) = channel();
    let handle = Arc::new(LastHandle { stream: Mutex::new(None), dropped });
    let waker = Waker::from(handle.clone());
    assert!(stream.poll_next(&mut Context::from_waker(&waker)).is_pending());
    *handle.stream.lock().unwrap() = Some(stream);
    drop(engine);
    rig.release();
    assert!(receiver.recv_timeout(HANG).unwrap(), "dropping panicked");
}
