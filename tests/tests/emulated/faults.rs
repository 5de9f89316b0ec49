//! Faults that the emulators inject alike, and what every backend owes its user then: a typed error, nothing leaked.

use super::{Emulator, Outcome};

impl Emulator {
    /// Generates with a fault.
    pub(crate) fn generate_with(&self, fault: &str) -> Outcome {
        self.check(&[self.device, "generate"], ("FAULT", fault))
    }

    /// Allocations of weights, of the cache, of a step: whichever fails, the error says so and is not fatal. The first ones
    /// belong to opening. A device that is too small is refused while loading.
    pub(crate) fn exhausts_memory(&self) {
        for nth in [1, 2, 20, 60, 150] {
            let outcome = self.generate_with(&format!("alloc:{nth}"));
            outcome.expect_failure(&["out of memory asking for", "\"is_fatal\":false"]);
        }
        let small = self.check(&[self.device, "generate"], ("MEMORY", "3000000"));
        small.expect(3, &["\"is_fatal\":false"]);
    }

    /// A launch that fails loses the device.
    pub(crate) fn fails_launches(&self, launches: &[u32]) {
        for nth in launches {
            self.generate_with(&format!("launch:{nth}")).expect_lost(&[self.failed_launch, "injected"]);
        }
    }

    /// From the first calls to the last: whatever is under way, the error is typed and nothing panics.
    pub(crate) fn loses_the_device(&self, calls: &[u32]) {
        for call in calls {
            self.generate_with(&format!("lost:{call}")).expect_lost(&[self.lost_device, self.device]);
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

    /// Asserts a lost device. What is lost while it is being opened cannot be used; later, it is lost.
    fn expect_lost(&self, words: &[&str]) {
        self.expect_failure(words);
        if self.status == Some(3) {
            self.expect(3, &["device lost", "\"is_fatal\":true"]);
        }
    }
}
