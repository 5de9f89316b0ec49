//! What the assembler says about each kernel (`--ptxas-options=-v`).

use std::collections::BTreeMap;

use crate::kernels::manifest::Resources;

/// A log, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    /// By kernel name.
    pub(super) kernels: BTreeMap<String, Resources>,
    /// Notes of the C75xx family: wgmma serialised, register reallocation ignored. Each costs a multiple of the time.
    pub(super) performance_losses: Vec<String>,
    /// All other warnings.
    pub(super) warnings: Vec<String>,
}

impl Log {
    pub(super) fn parse(text: &str) -> Self {
        let mut log = Self::default();
        let mut kernel: Option<String> = None;
        for line in text.lines() {
            if names_performance_loss(line) {
                log.performance_losses.push(line.trim().to_owned());
            } else if line.contains("warning") {
                log.warnings.push(line.trim().to_owned());
            }
            if let Some(name) = line.split("Compiling entry function '").nth(1).and_then(|rest| rest.split('\'').next())
            {
                kernel = Some(name.to_owned());
                log.kernels.insert(name.to_owned(), Resources::default());
            }
            let Some(resources) = kernel.as_ref().and_then(|name| log.kernels.get_mut(name)) else { continue };
            if line.contains("bytes stack frame") {
                resources.stack_bytes = number_before(line, "bytes stack frame");
                resources.spill_bytes =
                    number_before(line, "bytes spill stores") + number_before(line, "bytes spill loads");
            } else if line.contains("Used ") && line.contains(" registers") {
                resources.registers = number_before(line, "registers");
                resources.barriers = Some(number_before(line, "barriers"));
                resources.shared_bytes = number_before(line, "bytes smem");
            }
        }
        log
    }
}

/// True for `C75` and two digits, standing alone.
fn names_performance_loss(line: &str) -> bool {
    line.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word.len() == 5 && word.starts_with("C75") && word[3..].chars().all(|digit| digit.is_ascii_digit()))
}

/// The number that stands right before `unit`, 0 where the line does not speak of it.
fn number_before(line: &str, unit: &str) -> u32 {
    let Some((before, _)) = line.split_once(unit) else { return 0 };
    before.split_whitespace().next_back().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// As NVRTC 12.9 wrote it.
    const TWO_KERNELS: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'spills' for 'sm_80'
ptxas info    : Function properties for spills
ptxas         .     256 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 30 registers, used 0 barriers, 256 bytes cumulative stack size, 364 bytes cmem[0]
ptxas info    : Compile time = 27.075 ms
ptxas info    : Compiling entry function 'fits' for 'sm_80'
ptxas info    : Function properties for fits
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 9 registers, used 1 barriers, 1024 bytes smem, 376 bytes cmem[0]
ptxas info    : Compile time = 1.851 ms
";

    #[test]
    fn resources_are_read_per_kernel() {
        let log = Log::parse(TWO_KERNELS);
        assert_eq!(log.kernels.len(), 2);
        assert_eq!(
            log.kernels["spills"],
            Resources { registers: 30, spill_bytes: 20, stack_bytes: 256, barriers: Some(0), ..Resources::default() }
        );
        assert_eq!(
            log.kernels["fits"],
            Resources { registers: 9, shared_bytes: 1024, barriers: Some(1), ..Resources::default() }
        );
        assert_eq!((log.warnings.len(), log.performance_losses.len()), (0, 0));
    }

    #[test]
    fn performance_losses_are_told_from_other_warnings() {
        let log = Log::parse(
            "ptxas info    : (C7511) Potential Performance Loss: wgmma.mma_async instructions are serialized\n\
             a.cu(3): warning #177-D: variable \"x\" was declared but never referenced\n\
             ptxas info    : register C751 and XC7511X are no notes\n",
        );
        assert_eq!(log.performance_losses.len(), 1);
        assert!(log.performance_losses[0].contains("C7511"));
        assert_eq!(log.warnings.len(), 1);
    }
}
