//! What is emulated: the product, and the faults to inject.

use std::collections::BTreeMap;

/// Environment variables that this library reads. Nothing else of the project does.
pub const VARIABLES: [&str; 4] = [PRODUCT, DEVICES, MEMORY, FAULT];
/// `a2`, `a3`, or `310p`, which no backend is made for.
pub const PRODUCT: &str = "ASCEND_EMULATOR_PRODUCT";
/// Number of devices, 0 to 2.
pub const DEVICES: &str = "ASCEND_EMULATOR_DEVICES";
/// Device memory in bytes.
pub const MEMORY: &str = "ASCEND_EMULATOR_MEMORY";
/// `alloc:N`, `launch:N` or `lost:N`: the N-th allocation or operator fails, the device is gone from the N-th call on.
pub const FAULT: &str = "ASCEND_EMULATOR_FAULT";

/// A product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) name: &'static str,
    /// What `aclrtGetSocName` answers, with its final zero.
    pub(crate) soc: &'static std::ffi::CStr,
}

pub(crate) const PRODUCTS: [Product; 3] = [
    Product { name: "a2", soc: c"Ascend910B1" },
    Product { name: "a3", soc: c"Ascend910_9391" },
    Product { name: "310p", soc: c"Ascend310P3" },
];

/// What goes wrong on purpose. Counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Allocation(u64),
    Launch(u64),
    DeviceLost(u64),
}

/// One emulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) product: Product,
    pub(crate) num_devices: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) fault: Option<Fault>,
}

impl Default for Config {
    fn default() -> Self {
        Self { product: PRODUCTS[0], num_devices: 1, memory_bytes: 4 << 30, fault: None }
    }
}

impl Config {
    /// From the environment.
    pub(crate) fn from_environment() -> Result<Self, String> {
        let set = VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
        Self::parse(&set.collect())
    }

    fn parse(variables: &BTreeMap<&str, String>) -> Result<Self, String> {
        let mut config = Self::default();
        for (&name, value) in variables {
            let wrong = |wanted: &str| format!("{name}={value}: not {wanted}");
            match name {
                PRODUCT => {
                    let product = PRODUCTS.iter().find(|product| product.name == value);
                    config.product = *product.ok_or_else(|| wrong("a2, a3 or 310p"))?;
                }
                DEVICES => {
                    config.num_devices =
                        value.parse().ok().filter(|count| *count <= 2).ok_or_else(|| wrong("0, 1 or 2"))?;
                }
                MEMORY => config.memory_bytes = value.parse().map_err(|_| wrong("a number of bytes"))?,
                FAULT => config.fault = Some(Fault::parse(value).ok_or_else(|| wrong("alloc:N, launch:N or lost:N"))?),
                _ => {}
            }
        }
        Ok(config)
    }
}

impl Fault {
    fn parse(text: &str) -> Option<Self> {
        let (kind, count) = text.split_once(':')?;
        let count = count.parse().ok().filter(|count| *count > 0)?;
        Some(match kind {
            "alloc" => Self::Allocation(count),
            "launch" => Self::Launch(count),
            "lost" => Self::DeviceLost(count),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(variables: &[(&'static str, &str)]) -> Result<Config, String> {
        Config::parse(&variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    #[test]
    fn variables_choose_the_machine() {
        let config = parse(&[(PRODUCT, "a3"), (DEVICES, "2"), (MEMORY, "1000"), (FAULT, "launch:3")]).unwrap();
        assert_eq!(config.product.soc, c"Ascend910_9391");
        assert_eq!((config.num_devices, config.memory_bytes), (2, 1000));
        assert_eq!(config.fault, Some(Fault::Launch(3)));
        assert_eq!(parse(&[]).unwrap(), Config::default());
    }

    #[test]
    fn what_it_does_not_understand_it_refuses() {
        for variable in [(PRODUCT, "a5"), (DEVICES, "3"), (MEMORY, "much"), (FAULT, "alloc"), (FAULT, "alloc:0")] {
            let error = parse(&[variable]).unwrap_err();
            assert!(error.contains(variable.0) && error.contains(variable.1), "{error}");
        }
    }
}
