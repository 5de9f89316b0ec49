//! Device code as a vendor's crate carries it: images of kernel families, compressed, and the parameters of their kernels.

use crate::runtime::Arg;

/// Most parameters of a kernel: enough for all there are, so that a launch allocates nothing.
pub const MAX_ARGUMENTS: usize = 40;

/// The images of one kernel source.
#[derive(Debug)]
pub struct Family {
    /// Source file without its ending.
    pub name: &'static str,
    /// Kernels that some architecture's image has.
    pub kernels: &'static [KernelParameters],
    /// One for each architecture.
    pub images: &'static [Image],
}

/// A kernel and the sizes of its parameters in bytes, the same on every architecture.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelParameters {
    /// Entry point.
    pub name: &'static str,
    /// In order.
    pub num_bytes: &'static [u32],
}

/// An image for one architecture.
#[derive(Debug)]
pub struct Image {
    /// As the compiler calls it.
    pub architecture: &'static str,
    /// Uncompressed.
    pub num_bytes: usize,
    /// What it is, compressed.
    pub zlib: &'static [u8],
}

/// All families of a vendor.
#[derive(Debug, Clone, Copy)]
pub struct Images(pub &'static [Family]);

impl Images {
    /// The image of a family for an architecture, unpacked; `None` where there is none.
    pub fn image(self, family: &str, architecture: &str) -> Option<Vec<u8>> {
        let family = self.0.iter().find(|candidate| candidate.name == family)?;
        let image = family.images.iter().find(|image| image.architecture == architecture)?;
        miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(image.zlib, image.num_bytes).ok()
    }

    /// A kernel of a family, on whichever architectures it exists.
    pub fn kernel(self, family: &str, name: &str) -> Option<&'static KernelParameters> {
        self.0.iter().find(|candidate| candidate.name == family)?.kernels.iter().find(|kernel| kernel.name == name)
    }
}

impl KernelParameters {
    /// The values of a launch's arguments, each in the low bytes of a word, and how many they are. Drivers read as many
    /// bytes as the parameter has, lowest first on every host they run on.
    ///
    /// # Panics
    /// If the arguments are not as many, or not as large, as the kernel's parameters: a bug of the layer above.
    pub fn words(&self, args: &[Arg]) -> ([u64; MAX_ARGUMENTS], usize) {
        let Self { name, num_bytes } = self;
        let fits = |(arg, num_bytes): (&Arg, &u32)| arg.num_bytes() == *num_bytes as usize;
        assert!(
            args.len() == num_bytes.len() && args.iter().zip(*num_bytes).all(fits),
            "{name} has parameters of {num_bytes:?} bytes and was given {args:?}"
        );
        let mut words = [0_u64; MAX_ARGUMENTS];
        for (word, arg) in words.iter_mut().zip(args) {
            *word = match *arg {
                Arg::Ptr(address) => address,
                Arg::U32(number) => u64::from(number),
                Arg::F32(number) => u64::from(number.to_bits()),
            };
        }
        (words, args.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: KernelParameters = KernelParameters { name: "scale", num_bytes: &[8, 4, 4] };

    #[test]
    fn arguments_become_words() {
        let (words, count) = KERNEL.words(&[Arg::Ptr(1 << 40), Arg::U32(7), Arg::F32(1.0)]);
        assert_eq!((&words[..count], words[count]), (&[1 << 40, 7, 0x3f80_0000][..], 0));
    }

    #[test]
    #[should_panic(expected = "scale has parameters of [8, 4, 4] bytes")]
    fn arguments_that_do_not_fit_are_a_bug() {
        let _ = KERNEL.words(&[Arg::U32(7), Arg::U32(7), Arg::F32(1.0)]);
    }
}
