//! Known breaches of the gates. Every entry is needed: one that nothing makes use of is a breach itself.

use super::gates::Allowed;

pub(super) const NVIDIA: &[Allowed] = &[];

/// Why attention may spill for blocks of many rows on devices that have 256 registers and 64 KiB for a block.
const NO_SUCH_BLOCK: &str = "with the latents of a DeepSeek model such a block does not fit 64 KiB of shared memory: it is \
                             launched for narrow test models alone";

/// Why scalar registers may be too few.
const IN_LANES: &str = "scalar registers are moved to lanes of a vector register, and none to memory";

/// Why attention over an FP8 cache may spill for the one block that fits RDNA3's shared memory.
const FEW_OF_A_TILE: &str = "eleven of a lane's values, 22 accesses in all: 256 registers hold what a tile of slots needs beside \
                             the products of a tile but for them";

/// Why attention of prompts may spill where tiles have many positions.
const NOT_THESE_TILES: &str = "with heads as wide as a DeepSeek model's, 64 KiB hold more queries beside tiles of 16 positions, which \
                               are launched then: these are for narrow test models";

pub(super) const AMD: &[Allowed] = &[
    Allowed::new("attend_r4", "gfx1100", 1096, NO_SUCH_BLOCK),
    Allowed::new("attend_r4", "gfx1201", 672, NO_SUCH_BLOCK),
    Allowed::new("attend_fp8_r1", "gfx90a", 72, IN_LANES),
    Allowed::new("attend_fp8_r2", "gfx90a", 72, IN_LANES),
    Allowed::new("attend_fp8_r2", "gfx942", 48, IN_LANES),
    Allowed::new("attend_fp8_r1", "gfx950", 56, IN_LANES),
    Allowed::new("attend_fp8_r1", "gfx1100", 48, FEW_OF_A_TILE),
    Allowed::new("attend_fp8_r2", "gfx1100", 352, NO_SUCH_BLOCK),
    Allowed::new("attend_fp8_r4", "gfx1100", 2008, NO_SUCH_BLOCK),
    Allowed::new("attend_fp8_r4", "gfx1201", 832, NO_SUCH_BLOCK),
    Allowed::new("attend_expanded_r1_p16", "gfx90a", 56, IN_LANES),
    Allowed::new("attend_expanded_r2_p32", "gfx90a", 84, IN_LANES),
    Allowed::new("attend_expanded_r2_p64", "gfx90a", 92, IN_LANES),
    Allowed::new("attend_expanded_r1_p16", "gfx942", 48, IN_LANES),
    Allowed::new("attend_expanded_r2_p32", "gfx942", 68, IN_LANES),
    Allowed::new("attend_expanded_r2_p64", "gfx942", 72, IN_LANES),
    Allowed::new("attend_expanded_r1_p16", "gfx950", 56, IN_LANES),
    Allowed::new("attend_expanded_r2_p32", "gfx950", 60, IN_LANES),
    Allowed::new("attend_expanded_r2_p64", "gfx950", 72, IN_LANES),
    Allowed::new("attend_expanded_r2_p32", "gfx1100", 956, NOT_THESE_TILES),
    Allowed::new("attend_expanded_r2_p64", "gfx1100", 2512, NOT_THESE_TILES),
    Allowed::new("attend_expanded_r2_p32", "gfx1201", 12, NOT_THESE_TILES),
    Allowed::new("attend_expanded_r2_p64", "gfx1201", 352, NOT_THESE_TILES),
];
