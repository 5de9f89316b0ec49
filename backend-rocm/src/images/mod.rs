//! Device code, compiled ahead of time by `cargo xtask kernels`, and what is known about it.

mod embedded;

use embedded::FAMILIES;
use gpu_common::{Family, Fp8, Image, Images, KernelParameters};

/// All of it.
pub(crate) const IMAGES: Images = Images(FAMILIES);

/// An architecture with device code, and what its images count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// As the compiler calls it, and the driver before the first colon.
    pub(crate) name: &'static str,
    /// Threads that run in lockstep.
    pub(crate) wave_size: u32,
    /// The e4m3 of its matrix units.
    pub(crate) fp8: Fp8,
}

/// Each with the products that have it.
pub(crate) const ARCHITECTURES: [Architecture; 5] = [
    // Instinct MI200.
    Architecture { name: "gfx90a", wave_size: 64, fp8: Fp8::None },
    // Instinct MI300X, MI325X.
    Architecture { name: "gfx942", wave_size: 64, fp8: Fp8::Fnuz },
    // Instinct MI350X, MI355X.
    Architecture { name: "gfx950", wave_size: 64, fp8: Fp8::Ocp },
    // Radeon RX 7900.
    Architecture { name: "gfx1100", wave_size: 32, fp8: Fp8::None },
    // Radeon RX 9070.
    Architecture { name: "gfx1201", wave_size: 32, fp8: Fp8::Ocp },
];

/// The architecture of a device that the driver calls `gfx942:sramecc+:xnack-`; `None` where there are no images for it.
/// Features behind colons do not matter: images are made for either state of each.
pub(crate) fn architecture(device: &str) -> Option<Architecture> {
    let name = device.split(':').next()?;
    ARCHITECTURES.into_iter().find(|architecture| architecture.name == name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_image_unpacks_to_its_size() {
        for family in FAMILIES {
            for entry in family.images {
                let image = IMAGES.image(family.name, entry.architecture).unwrap();
                assert_eq!(image.len(), entry.num_bytes, "{} for {}", family.name, entry.architecture);
                assert_eq!(&image[..4], b"\x7fELF");
            }
        }
        assert!(IMAGES.image("no_such_family", "gfx942").is_none());
    }

    #[test]
    fn a_launch_has_room_for_every_kernels_arguments() {
        for kernel in FAMILIES.iter().flat_map(|family| family.kernels) {
            assert!(kernel.num_bytes.len() <= gpu_common::MAX_ARGUMENTS, "{kernel:?}");
            // Addresses and numbers.
            assert!(kernel.num_bytes.iter().all(|bytes| matches!(bytes, 4 | 8)), "{kernel:?}");
        }
    }

    #[test]
    fn every_architecture_has_images() {
        for family in FAMILIES {
            for architecture in ARCHITECTURES {
                let has = |image: &Image| image.architecture == architecture.name;
                assert!(family.images.iter().any(has), "{} for {}", family.name, architecture.name);
            }
        }
    }

    #[test]
    fn features_behind_the_name_do_not_matter() {
        assert_eq!(architecture("gfx942:sramecc+:xnack-").unwrap().fp8, Fp8::Fnuz);
        assert_eq!(architecture("gfx1100").unwrap().wave_size, 32);
        assert_eq!(["gfx906:sramecc+:xnack-", "gfx94", "gfx9421", ""].map(architecture), [None; 4]);
    }
}
