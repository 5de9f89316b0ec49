//! Two devices that run one model together, and what becomes of the one when the other fails.

use crate::emulated::{Emulator, Machine, Outcome};

impl Emulator {
    /// Runs a check on two devices with one more choice of the emulator, without its prefix.
    pub(crate) fn check_pair(&self, machine: &Machine, words: &[&str], (name, value): (&str, &str)) -> Outcome {
        let variables = [(format!("{}_DEVICES", self.prefix), "2"), (format!("{}_{name}", self.prefix), value)];
        let variables = variables.each_ref().map(|(name, value)| (name.as_str(), *value));
        machine.check(words, &variables)
    }

    /// Sums, and the model's perplexity, on two devices of one more choice of the emulator.
    pub(crate) fn runs_models_on_two_devices(&self, choice: (&str, &str)) {
        let outcome = self.check_pair(&self.installed(), &[self.device, "group", "2"], choice);
        println!("{}", outcome.text);
        outcome.expect(0, &["\"all_reduce_faults\":[]", "bf16w_bf16"]);
    }

    /// A failure on one device ends the generation on both, with an error that is fatal; nothing hangs or leaks.
    /// `launch:N` takes away the device whose kernel that is.
    pub(crate) fn ends_when_a_device_of_two_fails(&self, faults: &[(&str, &str)]) {
        for (fault, words) in faults {
            let outcome = self.check_pair(&self.installed(), &[self.device, "generate", "2"], ("FAULT", fault));
            println!("{fault}: {}", outcome.text);
            outcome.expect(3, &["injected", words, "\"is_fatal\":true"]);
            for trouble in ["hangs", "leaked", "panicked"] {
                assert!(!outcome.text.contains(trouble), "{fault}: {}", outcome.text);
            }
        }
    }
}
