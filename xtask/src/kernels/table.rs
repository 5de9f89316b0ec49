//! The table of images for the Rust side.

use std::collections::BTreeMap;

use super::manifest::{FamilyImages, Manifest};

/// The text of a backend's `src/images/embedded.rs`.
pub(super) fn rust(manifest: &Manifest) -> String {
    let mut text = String::from(
        "//! Device images and the parameters of their kernels. Written by `cargo xtask kernels`.\n\n\
         use super::{Family, Image, KernelParameters};\n\n\
         #[rustfmt::skip]\npub(super) static FAMILIES: &[Family] = &[\n",
    );
    for family in &manifest.families {
        text += &format!("    Family {{ name: {:?}, kernels: &[\n", family.family);
        for (name, parameters) in parameters(family) {
            text += &format!("        KernelParameters {{ name: {name:?}, num_bytes: &{parameters:?} }},\n");
        }
        text += "    ], images: &[\n";
        for image in &family.images {
            text += &format!(
                "        Image {{ architecture: {:?}, num_bytes: {}, zlib: include_bytes!(\"../../images/{}\") }},\n",
                image.architecture, image.image_bytes, image.file
            );
        }
        text += "    ] },\n";
    }
    text + "];\n"
}

/// Parameters of every kernel of a family, on whichever architectures it exists.
fn parameters(family: &FamilyImages) -> BTreeMap<&str, &[u32]> {
    let kernels = family.images.iter().flat_map(|image| &image.kernels);
    kernels.map(|kernel| (kernel.name.as_str(), kernel.parameters.as_slice())).collect()
}
