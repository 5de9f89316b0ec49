//! What is emulated: the product, and the choices of every emulator.

use emulator_common::config::{Common, Variables, take, variables};

/// How the environment variables begin that this library reads (`docs/emulators.md`). Nothing else of the project does.
pub const PREFIX: &str = "ASCEND_EMULATOR";
/// `a2`, `a3`, or `310p`, which no backend is made for.
const PRODUCT: &str = "PRODUCT";
/// `yes`: what was asked for is printed when the process ends.
const RECORD: &str = "RECORD";
/// Seconds after which a rank that did not come to a collective is a hang.
const PATIENCE: &str = "PATIENCE";

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

/// One emulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) product: Product,
    pub(crate) prints_record: bool,
    pub(crate) patience_s: u64,
    pub(crate) common: Common,
}

impl Default for Config {
    fn default() -> Self {
        Self { product: PRODUCTS[0], prints_record: false, patience_s: 60, common: Common::default() }
    }
}

impl Config {
    /// From the environment.
    pub(crate) fn from_environment() -> Result<Self, String> {
        Self::parse(&variables(PREFIX))
    }

    fn parse(variables: &Variables) -> Result<Self, String> {
        let Self { mut product, mut prints_record, mut patience_s, .. } = Self::default();
        let common = Common::parse(PREFIX, variables, |name, value| match name {
            PRODUCT => {
                let named = PRODUCTS.into_iter().find(|product| product.name == value);
                Some(take(named, &mut product, "a2, a3 or 310p"))
            }
            RECORD => Some(take((value == "yes").then_some(true), &mut prints_record, "yes")),
            PATIENCE => Some(take(value.parse().ok(), &mut patience_s, "a number of seconds")),
            _ => None,
        })?;
        Ok(Self { product, prints_record, patience_s, common })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn variables_choose_the_product() {
        let product = |name: &str| Config::parse(&[(PRODUCT.to_owned(), name.to_owned())].into());
        assert_eq!(product("a3").unwrap().product.soc, c"Ascend910_9391");
        let error = product("a5").unwrap_err();
        assert!(error.contains("ASCEND_EMULATOR_PRODUCT=a5: not a2, a3 or 310p"), "{error}");
    }
}
