//! What the machine says about itself.

/// The processor's name as its maker calls it, or the architecture where it does not say.
pub(crate) fn cpu_name() -> String {
    brand_string().unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[cfg(target_arch = "x86_64")]
fn brand_string() -> Option<String> {
    use std::arch::x86_64::__cpuid;

    const FIRST_LEAF: u32 = 0x8000_0002;
    const LAST_LEAF: u32 = 0x8000_0004;
    if __cpuid(0x8000_0000).eax < LAST_LEAF {
        return None;
    }
    let bytes: Vec<u8> = (FIRST_LEAF..=LAST_LEAF)
        .flat_map(|leaf| {
            let registers = __cpuid(leaf);
            [registers.eax, registers.ebx, registers.ecx, registers.edx]
        })
        .flat_map(u32::to_le_bytes)
        .take_while(|byte| *byte != 0)
        .collect();
    let name = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(not(target_arch = "x86_64"))]
fn brand_string() -> Option<String> {
    None
}

/// Memory that can be used without swapping, in bytes, where the system says.
pub(crate) fn available_memory() -> Option<u64> {
    parse_mem_available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mem_available_is_read_in_bytes() {
        let text = "MemTotal:       24523436 kB\nMemFree:         1000 kB\nMemAvailable:   23000000 kB\n";
        assert_eq!(parse_mem_available(text), Some(23_000_000 * 1024));
        assert_eq!(parse_mem_available("MemTotal: 5 kB\n"), None);
        assert_eq!(parse_mem_available("MemAvailable: many kB\n"), None);
    }

    #[test]
    fn the_processor_has_a_name() {
        assert!(!cpu_name().is_empty());
    }
}
