//! What NCCL and RCCL have in common: recordings of groups, and why there is no group.

use crate::emulated::{Emulator, Machine};

impl Emulator {
    /// Captured steps of two devices against launched ones.
    pub(crate) fn captures_on_two_devices(&self, profile: &str) {
        let outcome = self.check_pair(&self.installed(), &[self.device, "capture", "2"], ("PROFILE", profile));
        println!("{}", outcome.text);
        outcome.expect(0, &["\"steady_step\":{\"launches\":0,", "\"replays\":1}", "\"host_allocations\":0"]);
    }

    /// Groups that cannot be made: why, in the words of the library called `name`.
    pub(crate) fn tells_why_there_is_no_group(&self, name: &str) {
        let generate = [self.device, "generate", "2"];
        let expect = |machine: &Machine, variable, words: &[&str]| {
            self.check_pair(machine, &generate, variable).expect(4, words);
        };
        let library = self.libraries[1];
        let bare = self.installed();
        std::fs::remove_file(bare.folder().join(library)).unwrap();
        let two = &format!("{}:0,1", self.device);
        expect(&bare, ("PATIENCE", "60"), &[two, &format!("no {name}: none of {library}"), "install", "2.10"]);
        let old = format!("{name} is version 2.8, needed is 2.10");
        expect(&self.installed(), ("NCCL", "2804"), &[two, &old]);
        let lacking = format!("{name} has no function ncclCommAbort");
        expect(&self.without(&["ncclCommAbort"]), ("NCCL", "22100"), &[&lacking]);
        let installed = self.installed();
        expect(&installed, ("FAULT", "group:1"), &["makes no communicators: ncclCommInitAll answered 2", "NCCL_DEBUG"]);
        // Those that are tried when the group is made: a sum on each of two devices, small and large.
        expect(&installed, ("FAULT", "collective:2"), &["does not sum 64 values: ncclAllReduce answered 2"]);
        expect(
            &installed,
            ("FAULT", "sum:2"),
            &["does not sum 1048576 values: a sum that was queued before answered 6"],
        );
        let beyond = installed.check(&[self.device, "generate", "2"], &[]);
        beyond.expect(4, &["1 device"]);
        // Alone, a device needs no library.
        bare.check(&[self.device, "generate"], &[]).expect(0, &["\"text\":\""]);
    }
}
