//! Operators that come again with the same arguments: planned once, queued again and again.
//!
//! A decoding step asks for the operators of the step before it, on the same memory. What an operator is called with makes a
//! key: addresses, shapes, attributes. The second time a key is met its executor is made repeatable and kept, with the
//! descriptors that it was planned with; from then on the call is a look-up and the operator's second function. A key that is
//! met once, as those of prompts are, costs an entry of the table and nothing else.
//!
//! Addresses are part of the key, so no address in an executor is ever changed.

use std::collections::HashMap;
use std::sync::Arc;

use super::context::Context;
use super::descriptor::Descriptors;
use super::report_drop;
use super::sys::types::aclOpExecutor;

/// Keys that are remembered; steps of DeepSeek-V3 have some 2 500. One more, and all are forgotten.
const MAX_KEYS: usize = 16_384;

/// The calls of a stream.
#[derive(Debug, Default)]
pub(super) struct Calls {
    known: HashMap<Box<[u64]>, Known>,
    /// The key that is being looked for; its memory stays.
    key: Vec<u64>,
}

#[derive(Debug)]
enum Known {
    /// Met once, or not repeatable: planned each time.
    Once,
    Never,
    Held(Held),
}

/// A repeatable executor and what it refers to. Destroyed when dropped.
#[derive(Debug)]
struct Held {
    executor: *mut aclOpExecutor,
    workspace_bytes: u64,
    context: Arc<Context>,
    /// Given back after the executor.
    _descriptors: Descriptors,
}

/// What is to be done with a key's executor.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lookup {
    /// Plan one and queue it.
    Plan,
    /// The same, and keep it.
    PlanToKeep,
    /// Queue this one, with a workspace of so many bytes.
    Queue(*mut aclOpExecutor, u64),
}

impl Calls {
    /// Begins a key. `function` is the operator's.
    pub(super) fn begin(&mut self, function: usize) -> &mut Vec<u64> {
        self.key.clear();
        self.key.push(function as u64);
        &mut self.key
    }

    /// Looks up the key that has been put together.
    pub(super) fn look_up(&mut self) -> Lookup {
        match self.known.get(self.key.as_slice()) {
            Some(Known::Held(held)) => return Lookup::Queue(held.executor, held.workspace_bytes),
            Some(Known::Once) => return Lookup::PlanToKeep,
            Some(Known::Never) => return Lookup::Plan,
            None => {}
        }
        if self.known.len() >= MAX_KEYS {
            self.known.clear();
        }
        self.known.insert(self.key.as_slice().into(), Known::Once);
        Lookup::Plan
    }

    /// Keeps an executor that is repeatable, with its descriptors.
    pub(super) fn keep(
        &mut self,
        context: &Arc<Context>,
        (executor, workspace_bytes): (*mut aclOpExecutor, u64),
        descriptors: Descriptors,
    ) {
        let held = Held { executor, workspace_bytes, context: context.clone(), _descriptors: descriptors };
        self.known.insert(self.key.as_slice().into(), Known::Held(held));
    }

    /// Remembers that the operator does not repeat.
    pub(super) fn give_up(&mut self) {
        self.known.insert(self.key.as_slice().into(), Known::Never);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: an operator planned it, it was made repeatable, so queueing has not used it up, and nobody else has it.
        let status = unsafe { (self.context.libraries().base.aclDestroyAclOpExecutor)(self.executor) };
        report_drop(self.context.libraries().check("aclDestroyAclOpExecutor", status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(calls: &mut Calls, key: &[u64]) -> Lookup {
        calls.begin(7).extend(key);
        calls.look_up()
    }

    #[test]
    fn a_key_is_kept_when_it_comes_again() {
        let mut calls = Calls::default();
        assert!(matches!(look_up(&mut calls, &[1, 2]), Lookup::Plan));
        assert!(matches!(look_up(&mut calls, &[1, 3]), Lookup::Plan), "another one");
        assert!(matches!(look_up(&mut calls, &[1, 2]), Lookup::PlanToKeep));
        assert!(matches!(look_up(&mut calls, &[1, 2]), Lookup::PlanToKeep), "nothing was kept");
        calls.give_up();
        assert!(matches!(look_up(&mut calls, &[1, 2]), Lookup::Plan));
        assert!(matches!(look_up(&mut calls, &[1]), Lookup::Plan), "a shorter one");
    }

    #[test]
    fn of_too_many_keys_none_is_remembered() {
        let mut calls = Calls::default();
        (0..MAX_KEYS as u64).for_each(|key| assert!(matches!(look_up(&mut calls, &[key]), Lookup::Plan)));
        assert!(matches!(look_up(&mut calls, &[0]), Lookup::PlanToKeep));
        assert!(matches!(look_up(&mut calls, &[MAX_KEYS as u64]), Lookup::Plan));
        assert!(matches!(look_up(&mut calls, &[0]), Lookup::Plan), "forgotten");
        assert!(calls.known.len() <= MAX_KEYS);
    }
}
