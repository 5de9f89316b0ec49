//! Known breaches of the gates. Every entry is needed: one that nothing makes use of is a breach itself.

use super::gates::Allowed;

pub(super) const NVIDIA: &[Allowed] = &[];

/// Why attention may spill for blocks of many rows on devices that have 256 registers and 64 KiB for a block.
const NO_SUCH_BLOCK: &str = "with the latents of a DeepSeek model such a block does not fit 64 KiB of shared memory: it is \
                             launched for narrow test models alone";

/// Why scalar registers may be too few.
const IN_LANES: &str = "scalar registers are moved to lanes of a vector register, and none to memory";

/// Why attention over an FP8 cache may spill for the one block that fits RDNA3's shared memory.
const FEW_OF_A_TILE: &str = "ten of a lane's values, 20 accesses in all: 256 registers hold what a tile of slots needs beside \
                             the products of a tile but for them";

pub(super) const AMD: &[Allowed] = &[
    Allowed::new("attend_r4", "gfx1100", 1096, NO_SUCH_BLOCK),
    Allowed::new("attend_r4", "gfx1201", 672, NO_SUCH_BLOCK),
    Allowed::new("attend_fp8_r1", "gfx90a", 72, IN_LANES),
    Allowed::new("attend_fp8_r2", "gfx90a", 72, IN_LANES),
    Allowed::new("attend_fp8_r2", "gfx942", 48, IN_LANES),
    Allowed::new("attend_fp8_r1", "gfx950", 56, IN_LANES),
    Allowed::new("attend_fp8_r1", "gfx1100", 44, FEW_OF_A_TILE),
    Allowed::new("attend_fp8_r2", "gfx1100", 344, NO_SUCH_BLOCK),
    Allowed::new("attend_fp8_r4", "gfx1100", 1996, NO_SUCH_BLOCK),
    Allowed::new("attend_fp8_r4", "gfx1201", 804, NO_SUCH_BLOCK),
];
