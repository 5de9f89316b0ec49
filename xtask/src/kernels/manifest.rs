//! `manifest.json`: what the images were made from, by which compiler, and what is in them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// All images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) compiler: Compiler,
    /// Options of every compilation, beside the architecture.
    pub(super) options: Vec<String>,
    pub(super) families: Vec<FamilyImages>,
}

/// Which compiler made the images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Compiler {
    /// As it states it.
    pub(super) version: String,
    /// Of the file of the library or program: builds of one version are told apart by it.
    pub(super) library_sha256: String,
}

/// The images of one source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FamilyImages {
    pub(super) family: String,
    /// Of the source and of all it includes.
    pub(super) source_sha256: String,
    /// In the order of [`Vendor::architectures`](super::Vendor::architectures), of which a family may have one alone.
    pub(super) images: Vec<ImageEntry>,
}

impl FamilyImages {
    /// Names of the kernels on any architecture.
    pub(super) fn kernel_names(&self) -> BTreeSet<&str> {
        self.images.iter().flat_map(|image| &image.kernels).map(|kernel| kernel.name.as_str()).collect()
    }
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageEntry {
    pub(super) architecture: String,
    /// Name of the compressed file.
    pub(super) file: String,
    pub(super) image_bytes: usize,
    /// Of the uncompressed image.
    pub(super) image_sha256: String,
    pub(super) kernels: Vec<KernelEntry>,
}

/// One entry point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KernelEntry {
    pub(super) name: String,
    /// Sizes in bytes, in order.
    pub(super) parameters: Vec<u32>,
    #[serde(flatten)]
    pub(super) resources: Resources,
}

/// What one kernel takes on one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Resources {
    /// Per thread; those of AMD's vector registers.
    pub(super) registers: u32,
    /// Bytes of what was moved elsewhere because registers ran out.
    pub(super) spill_bytes: u32,
    /// Bytes of memory per thread beside registers.
    pub(super) stack_bytes: u32,
    /// Bytes of static shared memory per block.
    pub(super) shared_bytes: u32,
    /// Of NVIDIA's blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) barriers: Option<u32>,
    /// Of AMD's waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scalar_registers: Option<u32>,
    /// Waves of AMD's that a SIMD can hold at once, as far as registers go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) waves: Option<u32>,
}

impl Manifest {
    /// As written to disk: one kernel per line, so that a change of one shows as one line.
    pub(super) fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut text = String::from("{\n");
        text += &format!("  \"compiler\": {},\n", serde_json::to_string(&self.compiler)?);
        text += &format!("  \"options\": {},\n  \"families\": [\n", serde_json::to_string(&self.options)?);
        for (f, family) in self.families.iter().enumerate() {
            text += &format!(
                "    {{\"family\": {:?}, \"source_sha256\": {:?}, \"images\": [\n",
                family.family, family.source_sha256
            );
            for (i, image) in family.images.iter().enumerate() {
                text += &format!(
                    "      {{\"architecture\": {:?}, \"file\": {:?}, \"image_bytes\": {}, \"image_sha256\": {:?}, \"kernels\": [\n",
                    image.architecture, image.file, image.image_bytes, image.image_sha256
                );
                for (k, kernel) in image.kernels.iter().enumerate() {
                    let comma = if k + 1 == image.kernels.len() { "" } else { "," };
                    text += &format!("        {}{comma}\n", serde_json::to_string(kernel)?);
                }
                text += if i + 1 == family.images.len() { "      ]}\n" } else { "      ]},\n" };
            }
            text += if f + 1 == self.families.len() { "    ]}\n" } else { "    ]},\n" };
        }
        text += "  ]\n}\n";
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let kernel = |name: &str| KernelEntry {
            name: name.into(),
            parameters: vec![8, 4],
            resources: Resources { registers: 32, ..Resources::default() },
        };
        let image = |architecture: &str| ImageEntry {
            architecture: architecture.into(),
            file: "norm.z".into(),
            image_bytes: 5,
            image_sha256: "ab".into(),
            kernels: vec![kernel("a"), kernel("b")],
        };
        let family = |family: &str| FamilyImages {
            family: family.into(),
            source_sha256: "cd".into(),
            images: vec![image("sm_80"), image("sm_90a")],
        };
        let manifest = Manifest {
            compiler: Compiler { version: "12.9".into(), library_sha256: "ef".into() },
            options: vec!["--std=c++17".into()],
            families: vec![family("norm"), family("linear")],
        };
        let text = manifest.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
        assert_eq!(text.lines().filter(|line| line.contains("\"registers\"")).count(), 8);
    }
}
