//! Known breaches of the gates. Every entry is needed: one that nothing makes use of is a breach itself.

use super::gates::Allowed;

pub(super) const NVIDIA: &[Allowed] = &[];

/// Why attention may spill for blocks of many rows on devices that have 256 registers and 64 KiB for a block.
const NO_SUCH_BLOCK: &str = "with the latents of a DeepSeek model such a block does not fit 64 KiB of shared memory: it is \
                             launched for narrow test models alone";

/// Why one scalar register may be too few.
const IN_A_LANE: &str = "one scalar register of 102 is moved to a lane of a vector register, and none to memory";

pub(super) const AMD: &[Allowed] = &[
    Allowed::new("attend_r1", "gfx90a", 4, IN_A_LANE),
    Allowed::new("attend_r2", "gfx1100", 304, NO_SUCH_BLOCK),
    Allowed::new("attend_r4", "gfx1100", 1748, NO_SUCH_BLOCK),
    Allowed::new("attend_r4", "gfx1201", 828, NO_SUCH_BLOCK),
];
