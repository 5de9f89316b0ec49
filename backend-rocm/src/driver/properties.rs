//! What the runtime says about a device.

use std::ffi::{CStr, c_int};

use super::HipError;
use super::context::Device;
use super::sys::attribute;

/// Bytes handed to `hipGetDevicePropertiesR0600`: its structure has 1472 in ROCm 7, and room to grow.
const PROPERTIES_BYTES: usize = 4096;
/// Offsets in it, the same in every version since ROCm 6 (`hipDeviceProp_tR0600`).
const NAME: usize = 0;
const SHARED_MEM_PER_BLOCK: usize = 296;
const WARP_SIZE: usize = 308;
const MULTI_PROCESSOR_COUNT: usize = 388;
const GCN_ARCH_NAME: usize = 1160;
/// Bytes of a text in it.
const TEXT_BYTES: usize = 256;

/// A device, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Properties {
    /// As its maker calls it.
    pub(crate) name: String,
    /// Architecture, and the state of its features: `gfx942:sramecc+:xnack-`.
    pub(crate) gcn_arch_name: String,
    pub(crate) wave_size: u32,
    pub(crate) num_multiprocessors: u32,
    /// Of a block, in bytes.
    pub(crate) max_shared_bytes: u32,
}

/// Why a device's description cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PropertiesError {
    Failed(HipError),
    /// The structure says other things than functions do: it is laid out in another way.
    Contradiction {
        what: &'static str,
        in_structure: String,
        by_function: String,
    },
}

impl From<HipError> for PropertiesError {
    fn from(error: HipError) -> Self {
        Self::Failed(error)
    }
}

impl Properties {
    /// Of a device. What the structure says is compared with what functions say of the same.
    pub(crate) fn read(device: &Device) -> Result<Self, PropertiesError> {
        let mut bytes = Box::new([0_u8; PROPERTIES_BYTES]);
        device.properties(&mut bytes)?;
        let properties = Self::parse(&bytes);
        let number = |which: c_int| device.attribute(which).map(|number| number.to_string());
        for (what, in_structure, by_function) in [
            ("its name", properties.name.clone(), device.name()?),
            ("the wave size", properties.wave_size.to_string(), number(attribute::WARP_SIZE)?),
            (
                "the number of compute units",
                properties.num_multiprocessors.to_string(),
                number(attribute::MULTIPROCESSOR_COUNT)?,
            ),
            (
                "a block's shared memory",
                properties.max_shared_bytes.to_string(),
                number(attribute::MAX_SHARED_MEMORY_PER_BLOCK)?,
            ),
        ] {
            if in_structure != by_function {
                return Err(PropertiesError::Contradiction { what, in_structure, by_function });
            }
        }
        Ok(properties)
    }

    fn parse(bytes: &[u8; PROPERTIES_BYTES]) -> Self {
        let text = |at: usize| {
            let text = CStr::from_bytes_until_nul(&bytes[at..at + TEXT_BYTES]);
            text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
        };
        // Sizes are numbers of 8 bytes whose upper half is 0, on hosts that have the lower half first.
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        Self {
            name: text(NAME),
            gcn_arch_name: text(GCN_ARCH_NAME),
            wave_size: word(WARP_SIZE),
            num_multiprocessors: word(MULTI_PROCESSOR_COUNT),
            max_shared_bytes: word(SHARED_MEM_PER_BLOCK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_rocm_6_and_later_have_them() {
        let mut bytes = [0; PROPERTIES_BYTES];
        bytes[..18].copy_from_slice(b"AMD Instinct MI300");
        bytes[GCN_ARCH_NAME..][..23].copy_from_slice(b"gfx942:sramecc+:xnack-\0");
        for (at, number) in [(SHARED_MEM_PER_BLOCK, 65_536_u32), (WARP_SIZE, 64), (MULTI_PROCESSOR_COUNT, 304)] {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let expected = Properties {
            name: "AMD Instinct MI300".into(),
            gcn_arch_name: "gfx942:sramecc+:xnack-".into(),
            wave_size: 64,
            num_multiprocessors: 304,
            max_shared_bytes: 65_536,
        };
        assert_eq!(Properties::parse(&bytes), expected);
    }
}
