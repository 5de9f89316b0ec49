//! Faults that the emulators inject alike, and what every backend owes its user then: a typed error, nothing leaked.

use super::{Emulator, Outcome};

impl Emulator {
    /// Generates with a fault.
    pub(crate) fn generate_with(&self, fault: &str) -> Outcome {
        self.check(&[self.device, "generate"], ("FAULT", fault))
    }

    /// Allocations of weights, of the cache, of a step: whichever fails, the error says so and is not fatal. The first one
    /// belongs to opening. A device that is too small is refused while loading.
    pub(crate) fn exhausts_memory(&self) {
        self.generate_with("alloc:1").expect_failure(&["out of memory"]);
        for nth in [2, 20, 60, 150] {
            let outcome = self.generate_with(&format!("alloc:{nth}"));
            outcome.expect(3, &["out of memory asking for", "\"is_fatal\":false"]);
        }
        let small = self.check(&[self.device, "generate"], ("MEMORY", "3000000"));
        small.expect(3, &["\"is_fatal\":false"]);
    }

    /// A launch that fails loses the device.
    pub(crate) fn fails_launches(&self, launches: &[u32]) {
        for nth in launches {
            let outcome = self.generate_with(&format!("launch:{nth}"));
            outcome.expect_failure(&["device lost", self.failed_launch, "injected", "\"is_fatal\":true"]);
        }
    }

    /// From the first calls to the last: whatever is under way, the error is typed and nothing panics.
    pub(crate) fn loses_the_device(&self, calls: &[u32]) {
        for call in calls {
            let outcome = self.generate_with(&format!("lost:{call}"));
            outcome.expect_failure(&[self.lost_device, self.device]);
            // What is lost while it is being opened cannot be used; later, it is lost.
            if outcome.status == Some(3) {
                outcome.expect(3, &["device lost", "\"is_fatal\":true"]);
            }
        }
    }
}

impl Outcome {
    /// Asserts that a typed error ended it, and nothing worse.
    fn expect_failure(&self, words: &[&str]) {
        let status = self.status.filter(|status| [3, 4].contains(status)).unwrap_or(3);
        self.expect(status, words);
        assert!(!self.text.contains("leaked") && !self.text.contains("panicked"), "{}", self.text);
    }
}
