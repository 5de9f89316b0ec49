//! Assembly text of AMD's kernels, as clang writes it: a label per kernel, an instruction a line, and comments on what a
//! kernel takes behind it.

use std::collections::BTreeMap;

use crate::kernels::instructions::Instructions;

/// What the text says about its kernels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Assembly {
    pub(super) instructions: Instructions,
    /// Waves that a SIMD can hold at once of each kernel, as far as registers go.
    pub(super) waves: BTreeMap<String, u32>,
}

impl Assembly {
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        let mut kernel: Option<&str> = None;
        let mut is_code = false;
        for line in text.lines() {
            if let Some(name) = label(line) {
                kernel = Some(name);
                is_code = true;
            } else if line.starts_with(".Lfunc_end") {
                is_code = false;
            }
            let Some(kernel) = kernel else { continue };
            if let Some(waves) = line.strip_prefix("; Occupancy: ").and_then(|waves| waves.parse().ok()) {
                found.waves.insert(kernel.to_owned(), waves);
            }
            if let Some(mnemonic) = mnemonic(line).filter(|_| is_code) {
                let kernel = found.instructions.kernels.entry(kernel.to_owned()).or_default();
                *kernel.entry(mnemonic.to_owned()).or_default() += 1;
            }
        }
        found
    }
}

/// `add:   ; @add`: the name behind the label tells functions from blocks of code.
fn label(line: &str) -> Option<&str> {
    let (label, name) = line.split_once("; @")?;
    (label.trim_end().strip_suffix(':') == Some(name)).then_some(name)
}

/// The first word of an instruction; directives begin with a dot.
fn mnemonic(line: &str) -> Option<&str> {
    let code = line.strip_prefix('\t')?;
    code.split_whitespace().next().filter(|word| word.starts_with(char::is_alphabetic))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As clang 22 writes it, shortened.
    const TEXT: &str = "\
\t.amdgcn_target \"amdgcn-amd-amdhsa--gfx942\"
attend_r1:                              ; @attend_r1
; %bb.0:
\ts_load_dwordx2 s[2:3], s[0:1], 0x0
.LBB0_1:                                ; =>This Inner Loop Header: Depth=1
\tv_mfma_f32_16x16x16_bf16 v[0:3], v[4:5], v[6:7], v[0:3]
\ts_endpgm
.Lfunc_end0:
\t.set attend_r1.num_vgpr, 8
\tv_not_of_a_kernel
; Occupancy: 5
add:                                    ; @add
\ts_endpgm
; Occupancy: 16
\t.type\t__hip_cuid_,@object             ; @__hip_cuid_
";

    #[test]
    fn instructions_and_waves_are_read_per_kernel() {
        let found = Assembly::parse(TEXT);
        assert_eq!(found.waves, BTreeMap::from([("attend_r1".to_owned(), 5), ("add".to_owned(), 16)]));
        let kernels = &found.instructions.kernels;
        assert_eq!(kernels["add"], BTreeMap::from([("s_endpgm".to_owned(), 1)]));
        assert_eq!((kernels.len(), kernels["attend_r1"].len()), (2, 3));
        assert_eq!(found.instructions.count("attend_r1", &["v", "mfma", "f32", "16x16x16", "bf16"]), 1);
    }
}
