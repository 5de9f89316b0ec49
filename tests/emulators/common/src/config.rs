//! Choices of every emulated machine, and where they come from.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::fault::Fault;

/// Most devices that a machine can have.
const MAX_DEVICES: u32 = 8;

/// Variables of an environment that belong to one emulator, by what follows its prefix.
pub type Variables = BTreeMap<String, String>;

/// Those of the process, in `PREFIX_NAME`.
pub fn variables(prefix: &str) -> Variables {
    let own = |(name, value): (OsString, OsString)| {
        let name = name.to_str()?.strip_prefix(prefix)?.strip_prefix('_')?.to_owned();
        Some((name, value.to_string_lossy().into_owned()))
    };
    std::env::vars_os().filter_map(own).collect()
}

/// What every machine has: `DEVICES` (0 to 8), `MEMORY` (bytes of each) and `FAULT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Common {
    /// Number of devices.
    pub num_devices: u32,
    /// Memory of a device in bytes.
    pub memory_bytes: u64,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

impl Default for Common {
    fn default() -> Self {
        Self { num_devices: 1, memory_bytes: 4 << 30, fault: None }
    }
}

impl Common {
    /// Takes these choices, and hands every other variable to `own`, which answers what it wanted in place of a value that
    /// it does not understand, or `None` for a name that it does not know.
    ///
    /// # Errors
    /// The first variable that nobody understands.
    pub fn parse(
        prefix: &str,
        variables: &Variables,
        mut own: impl FnMut(&str, &str) -> Option<Result<(), &'static str>>,
    ) -> Result<Self, String> {
        let mut common = Self::default();
        for (name, value) in variables {
            let taken = match name.as_str() {
                "DEVICES" => {
                    take(value.parse().ok().filter(|count| *count <= MAX_DEVICES), &mut common.num_devices, "0 to 8")
                }
                "MEMORY" => take(value.parse().ok(), &mut common.memory_bytes, "a number of bytes"),
                "FAULT" => take(
                    Fault::parse(value).map(Some),
                    &mut common.fault,
                    "alloc:N, launch:N, lost:N, replay:N, group:N, collective:N, sum:N, product:N, algorithm:N or kernel:NAME",
                ),
                _ => own(name, value).unwrap_or(Err("a choice of this emulator")),
            };
            taken.map_err(|wanted| format!("{prefix}_{name}={value}: not {wanted}"))?;
        }
        Ok(common)
    }
}

/// Stores a value that was understood.
///
/// # Errors
/// What was wanted, where none was.
pub fn take<T>(value: Option<T>, to: &mut T, wanted: &'static str) -> Result<(), &'static str> {
    *to = value.ok_or(wanted)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Common, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Common::parse("X", &variables, |name, value| {
            (name == "OWN").then(|| take(value.parse().ok(), &mut 0_u32, "a number"))
        })
    }

    #[test]
    fn variables_choose_the_machine() {
        let chosen = parse(&[("DEVICES", "2"), ("MEMORY", "1000"), ("FAULT", "launch:3"), ("OWN", "1")]).unwrap();
        assert_eq!(chosen, Common { num_devices: 2, memory_bytes: 1000, fault: Some(Fault::Launch(3)) });
        assert_eq!(parse(&[]).unwrap(), Common::default());
    }

    #[test]
    fn what_it_does_not_understand_it_refuses() {
        for (name, value) in [
            ("DEVICES", "9"),
            ("MEMORY", "much"),
            ("FAULT", "alloc"),
            ("FAULT", "alloc:0"),
            ("OWN", "x"),
            ("OTHER", "1"),
        ] {
            let error = parse(&[(name, value)]).unwrap_err();
            assert!(error.contains(&format!("X_{name}={value}")), "{error}");
        }
    }
}
