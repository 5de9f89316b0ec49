//! Which instructions kernels must have, and which not.

use super::instructions::{Kernels, Rule, Verdict};

/// Products of bf16 values, of INT8 codes and of FP8 codes that go through tile.h.
const BF16_PRODUCTS: &[&str] = &["a16_s16", "a16_s32", "a16_t64"];
const INT8_PRODUCTS: &[&str] = &["int8_a8_s16", "int8_a8_s32", "int8_a8_t64"];
const FP8_PRODUCTS: &[&str] = &["fp8_a8_s16", "fp8_a8_s32", "fp8_a8_t64"];
/// Those whose matrix units take FP8 in `mma.sync`; on the others codes are widened.
const FP8_UNITS: &[&str] = &["sm_89", "sm_120a"];
const NO_FP8_UNITS: &[&str] = &["sm_80", "sm_86", "sm_90a", "sm_100a"];
/// Kernels of hopper_gemm.cu.
const WGMMA: &[&str] = &["_wgmma64", "_wgmma128", "_wgmma256"];

const fn required(
    kernels: Kernels,
    architectures: &'static [&'static str],
    words: &'static [&'static str],
    reason: &'static str,
) -> Rule {
    Rule { kernels, architectures, verdict: Verdict::Required, words, reason }
}

const fn forbidden(words: &'static [&'static str], reason: &'static str) -> Rule {
    Rule { kernels: Kernels::All, architectures: &[], verdict: Verdict::Forbidden, words, reason }
}

pub(super) const NVIDIA: &[Rule] = &[
    forbidden(&["LDL"], "a load from local memory: registers ran out, or an array is indexed at run time"),
    forbidden(&["STL"], "a store to local memory: registers ran out, or an array is indexed at run time"),
    required(
        Kernels::EndingIn(BF16_PRODUCTS),
        &[],
        &["HMMA", "16816", "F32", "BF16"],
        "bf16 is multiplied by the tensor cores",
    ),
    required(
        Kernels::EndingIn(INT8_PRODUCTS),
        &[],
        &["IMMA", "16832", "S8", "S8"],
        "INT8 codes are multiplied by the tensor cores",
    ),
    required(
        Kernels::EndingIn(FP8_PRODUCTS),
        FP8_UNITS,
        &["QMMA", "16832", "F32", "E4M3", "E4M3"],
        "FP8 codes are multiplied by the tensor cores as they are",
    ),
    required(
        Kernels::EndingIn(FP8_PRODUCTS),
        NO_FP8_UNITS,
        &["HMMA", "16816", "F32"],
        "widened FP8 codes are multiplied by the tensor cores",
    ),
    required(
        Kernels::StartingWith("attend_"),
        &[],
        &["HMMA", "16816", "F32", "BF16"],
        "attention multiplies tiles by the tensor cores",
    ),
    required(
        Kernels::EndingIn(WGMMA),
        &[],
        &["QGMMA", "F32", "E4M3", "E4M3"],
        "FP8 is multiplied by a warpgroup's tensor cores, not widened",
    ),
    required(Kernels::EndingIn(WGMMA), &[], &["UTMALDG", "2D"], "operands come by bulk copies"),
    required(
        Kernels::StartingWith("attend_"),
        &[],
        &["LDGSTS"],
        "attention copies the next positions past the registers while it computes with these",
    ),
];

/// AMD's devices: those with MFMA (MI200, MI300, MI350), and those with WMMA.
const MI200: &[&str] = &["gfx90a"];
const MI300: &[&str] = &["gfx942"];
const MI350: &[&str] = &["gfx950"];
const RDNA: &[&str] = &["gfx1100", "gfx1201"];
const RDNA3: &[&str] = &["gfx1100"];
const RDNA4: &[&str] = &["gfx1201"];

const BF16_UNITS: &str = "bf16 is multiplied by the matrix units";
const INT8_UNITS: &str = "INT8 codes are multiplied by the matrix units";
const FP8_AS_THEY_ARE: &str = "FP8 codes are multiplied by the matrix units as they are";
const FP8_WIDENED: &str = "widened FP8 codes are multiplied by the matrix units";
const ATTENTION: &str = "attention multiplies tiles by the matrix units";
const BF16: Kernels = Kernels::EndingIn(BF16_PRODUCTS);
const INT8: Kernels = Kernels::EndingIn(INT8_PRODUCTS);
const FP8: Kernels = Kernels::EndingIn(FP8_PRODUCTS);
const FP8_OF_FEW_ROWS: Kernels = Kernels::EndingIn(&["fp8_a8_s16", "fp8_a8_s32"]);
const FP8_OF_MANY_ROWS: Kernels = Kernels::EndingIn(&["fp8_a8_t64"]);
const ATTEND: Kernels = Kernels::StartingWith("attend_");

pub(super) const AMD: &[Rule] = &[
    forbidden(&["scratch"], "an access to memory beside registers: they ran out, or an array is indexed at run time"),
    forbidden(&["flat"], "an access that looks up at run time which memory it is of"),
    required(BF16, MI200, &["v", "mfma", "f32", "16x16x16bf16", "1k"], BF16_UNITS),
    required(BF16, MI300, &["v", "mfma", "f32", "16x16x16", "bf16"], BF16_UNITS),
    required(BF16, MI350, &["v", "mfma", "f32", "16x16x32", "bf16"], BF16_UNITS),
    required(BF16, RDNA, &["v", "wmma", "f32", "16x16x16", "bf16"], BF16_UNITS),
    required(INT8, MI200, &["v", "mfma", "i32", "16x16x16i8"], INT8_UNITS),
    required(INT8, MI300, &["v", "mfma", "i32", "16x16x32", "i8"], INT8_UNITS),
    required(INT8, MI350, &["v", "mfma", "i32", "16x16x64", "i8"], INT8_UNITS),
    required(INT8, RDNA, &["v", "wmma", "i32", "16x16x16", "iu8"], INT8_UNITS),
    required(FP8, MI200, &["v", "mfma", "f32", "16x16x16bf16", "1k"], FP8_WIDENED),
    required(FP8, MI300, &["v", "mfma", "f32", "16x16x32", "fp8", "fp8"], FP8_AS_THEY_ARE),
    required(FP8_OF_FEW_ROWS, MI350, &["v", "mfma", "f32", "16x16x32", "fp8", "fp8"], FP8_AS_THEY_ARE),
    required(FP8_OF_MANY_ROWS, MI350, &["v", "mfma", "f32", "16x16x128", "f8f6f4"], FP8_AS_THEY_ARE),
    required(FP8, RDNA3, &["v", "wmma", "f32", "16x16x16", "bf16"], FP8_WIDENED),
    required(FP8, RDNA4, &["v", "wmma", "f32", "16x16x16", "fp8", "fp8"], FP8_AS_THEY_ARE),
    required(ATTEND, MI200, &["v", "mfma", "f32", "16x16x16bf16", "1k"], ATTENTION),
    required(ATTEND, MI300, &["v", "mfma", "f32", "16x16x16", "bf16"], ATTENTION),
    required(ATTEND, MI350, &["v", "mfma", "f32", "16x16x32", "bf16"], ATTENTION),
    required(ATTEND, RDNA, &["v", "wmma", "f32", "16x16x16", "bf16"], ATTENTION),
];
