//! Known breaches of the gates. Every entry is needed: one that nothing makes use of is a breach itself.

use super::gates::Allowed;

pub(super) const NVIDIA: &[Allowed] = &[];

/// Why attention may spill for blocks of many rows on devices that have 256 registers and 64 KiB for a block.
const NO_SUCH_BLOCK: &str = "with the latents of a DeepSeek model such a block does not fit 64 KiB of shared memory: it is \
                             launched for narrow test models alone";

pub(super) const AMD: &[Allowed] = &[
    Allowed::new("attend_r2", "gfx1100", 304, NO_SUCH_BLOCK),
    Allowed::new("attend_r4", "gfx1100", 1800, NO_SUCH_BLOCK),
    Allowed::new("attend_r4", "gfx1201", 840, NO_SUCH_BLOCK),
];
