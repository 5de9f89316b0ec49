//! Device code, compiled ahead of time by `cargo xtask kernels`, and what is known about it.

mod embedded;

use embedded::FAMILIES;
use gpu_common::{Family, Image, Images, KernelParameters};

/// All of it.
pub(crate) const IMAGES: Images = Images(FAMILIES);

/// How many kernels a family has.
#[cfg(test)]
pub(crate) fn num_kernels(family: &str) -> usize {
    FAMILIES.iter().filter(|candidate| candidate.name == family).map(|family| family.kernels.len()).sum()
}

/// The architecture whose images a device of this compute capability runs, best first choice; `None` where there is
/// none.
pub(crate) fn architecture(compute_capability: (u32, u32)) -> Option<&'static str> {
    Some(match compute_capability {
        (8, 9) => "sm_89",
        (8, 6 | 7) => "sm_86",
        (8, _) => "sm_80",
        (9, 0) => "sm_90a",
        (10, 0) => "sm_100a",
        (12, 0) => "sm_120a",
        _ => return None,
    })
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
        assert!(IMAGES.image("no_such_family", "sm_80").is_none());
    }

    #[test]
    fn a_launch_has_room_for_every_kernels_arguments() {
        for kernel in FAMILIES.iter().flat_map(|family| family.kernels) {
            assert!(kernel.num_bytes.len() <= gpu_common::MAX_ARGUMENTS, "{kernel:?}");
            // Addresses, numbers, and tensor maps of Hopper's kernels.
            assert!(kernel.num_bytes.iter().all(|bytes| matches!(bytes, 4 | 8 | 128)), "{kernel:?}");
        }
    }

    #[test]
    fn every_architecture_that_is_chosen_has_images() {
        let chosen = [(8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (12, 0)].map(|c| architecture(c).unwrap());
        let for_one = [crate::wide::FAMILY, crate::cublaslt::FAMILY];
        for family in FAMILIES.iter().filter(|family| !for_one.contains(&family.name)) {
            for architecture in chosen {
                let has = |image: &Image| image.architecture == architecture;
                assert!(family.images.iter().any(has), "{} for {architecture}", family.name);
            }
        }
        assert_eq!([(7, 5), (9, 1), (11, 0), (13, 0)].map(architecture), [None; 4]);
    }
}
