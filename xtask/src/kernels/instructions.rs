//! What the assembler made of each kernel: which instructions must be there, and which must not.

use std::collections::BTreeMap;

use super::gates::Allowed;

/// Mnemonics with their modifiers (`HMMA.16816.F32.BF16`, `v_mfma_f32_16x16x16_bf16`) of an image's kernels, and how often each occurs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Instructions {
    pub(super) kernels: BTreeMap<String, BTreeMap<String, u32>>,
}

/// Which kernels a rule is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kernels {
    All,
    EndingIn(&'static [&'static str]),
    StartingWith(&'static str),
}

/// What a rule says about an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Required,
    /// Unless the kernel has an entry in [`allowed`](super::allowed).
    Forbidden,
}

/// One rule. `words` are the mnemonic and modifiers that must follow it, in this order, others between them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) kernels: Kernels,
    /// Where it holds; empty: everywhere.
    pub(super) architectures: &'static [&'static str],
    pub(super) verdict: Verdict,
    pub(super) words: &'static [&'static str],
    pub(super) reason: &'static str,
}

impl Instructions {
    /// Reads what `nvdisasm -c` writes: a section `.text.KERNEL` per kernel, an instruction a line.
    pub(super) fn of_cubin(text: &str) -> Self {
        let mut found = Self::default();
        let mut kernel: Option<&mut BTreeMap<String, u32>> = None;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if words.next() == Some(".section") {
                let name = words
                    .next()
                    .and_then(|section| section.strip_prefix(".text."))
                    .and_then(|rest| rest.split(',').next());
                kernel = name.map(|name| found.kernels.entry(name.to_owned()).or_default());
            } else if let (Some(kernel), Some(mnemonic)) = (kernel.as_mut(), mnemonic(line)) {
                *kernel.entry(mnemonic.to_owned()).or_default() += 1;
            }
        }
        found
    }

    /// How often a kernel has an instruction.
    pub(super) fn count(&self, kernel: &str, words: &[&str]) -> u32 {
        let kernel = self.kernels.get(kernel).into_iter().flatten();
        kernel.filter(|(mnemonic, _)| has_words(mnemonic, words)).map(|(_, count)| count).sum()
    }
}

/// `/*0050*/   @P0 IMAD.SHL.U32 R5, …`: what stands behind address and predicate.
fn mnemonic(line: &str) -> Option<&str> {
    let code = line.trim_start().strip_prefix("/*")?.split_once("*/")?.1;
    code.split_whitespace().find(|word| !word.starts_with('@') && *word != "{")
}

fn has_words(mnemonic: &str, words: &[&str]) -> bool {
    let mut parts = mnemonic.split(['.', '_']);
    words.first().is_some_and(|first| parts.next() == Some(first))
        && words[1..].iter().all(|word| parts.any(|part| part == *word))
}

impl Rule {
    fn holds_on(&self, architecture: &str) -> bool {
        self.architectures.is_empty() || self.architectures.contains(&architecture)
    }
}

impl Kernels {
    fn has(self, kernel: &str) -> bool {
        match self {
            Kernels::All => true,
            Kernels::EndingIn(ends) => ends.iter().any(|end| kernel.ends_with(end)),
            Kernels::StartingWith(start) => kernel.starts_with(start),
        }
    }
}

/// Everything that is wrong with an image; empty is good.
pub(super) fn breaches(architecture: &str, image: &Instructions, rules: &[Rule], allowed: &[Allowed]) -> Vec<String> {
    let mut found = Vec::new();
    for (kernel, rule) in image.kernels.keys().flat_map(|kernel| rules.iter().map(move |rule| (kernel, rule))) {
        if !rule.kernels.has(kernel) || !rule.holds_on(architecture) {
            continue;
        }
        let (count, instruction) = (image.count(kernel, rule.words), rule.words.join("…"));
        let what = match rule.verdict {
            Verdict::Required if count == 0 => format!("no {instruction}"),
            Verdict::Forbidden if count > 0 && !Allowed::covers(allowed, kernel, architecture) => {
                format!("{count} times {instruction}")
            }
            Verdict::Required | Verdict::Forbidden => continue,
        };
        found.push(format!("{kernel} on {architecture}: {what} ({})", rule.reason));
    }
    found
}

/// One line for each rule that some kernel of the image is subject to: the rule and how often its instruction occurs.
pub(super) fn table(image: &Instructions, rules: &[Rule]) -> Vec<(String, u32)> {
    let subject = |rule: &&Rule| image.kernels.keys().any(|kernel| rule.kernels.has(kernel));
    let total = |rule: &Rule| image.kernels.keys().map(|kernel| image.count(kernel, rule.words)).sum();
    rules.iter().filter(subject).map(|rule| (rule.words.join("."), total(rule))).collect()
}

/// Rules that no kernel of any image is subject to: they would hold whatever happens.
pub(super) fn idle_rules<'a>(images: impl Iterator<Item = &'a Instructions> + Clone, rules: &[Rule]) -> Vec<String> {
    let is_idle =
        |rule: &&Rule| !images.clone().flat_map(|image| image.kernels.keys()).any(|name| rule.kernels.has(name));
    let idle = rules.iter().filter(is_idle);
    idle.map(|rule| format!("no kernel is subject to the rule about {}: {:?}", rule.words.join("…"), rule.kernels))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::rules;
    use super::*;

    /// As nvdisasm 13.5 writes it, shortened.
    const TWO_KERNELS: &str = "\
\t.headerflags\t@\"EF_CUDA_TEXMODE_UNIFIED EF_CUDA_SM90\"
//--------------------- .text.linear_bf16_a16_s16 --------------------------
\t.section\t.text.linear_bf16_a16_s16,\"ax\",@progbits
\t.sectionflags\t@\"SHF_BARRIERS=1\"
        .global         linear_bf16_a16_s16
linear_bf16_a16_s16:
.text.linear_bf16_a16_s16:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/               @P0 IMAD.SHL.U32 R5, R5, 0x4, RZ ;
        /*0020*/              @!P0 HMMA.16816.F32.BF16 R8, R12, R20, R8 ;
.L_x_0:
        /*0030*/                   HMMA.16816.F32.BF16 R4, R12, R22, R4 ;
        /*0040*/                   EXIT ;
//--------------------- .text.add --------------------------
\t.section\t.text.add,\"ax\",@progbits
        /*0000*/                   EXIT ;
\t.section\t.debug_line,\"\",@progbits
        /*0000*/                   NOP ;
";

    fn image(kernel: &str, mnemonics: &[&str]) -> Instructions {
        let counts = mnemonics.iter().map(|mnemonic| ((*mnemonic).to_owned(), 1)).collect();
        Instructions { kernels: BTreeMap::from([(kernel.to_owned(), counts)]) }
    }

    fn only(found: &[String], words: &str) {
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
    }

    #[test]
    fn mnemonics_are_counted_per_kernel() {
        let found = Instructions::of_cubin(TWO_KERNELS);
        assert_eq!(found.kernels.keys().collect::<Vec<_>>(), ["add", "linear_bf16_a16_s16"]);
        assert_eq!(found.kernels["add"], BTreeMap::from([("EXIT".to_owned(), 1)]));
        let tile = &found.kernels["linear_bf16_a16_s16"];
        assert_eq!((tile["HMMA.16816.F32.BF16"], tile["IMAD.SHL.U32"], tile.len()), (2, 1, 4));
        assert!(breaches("sm_90a", &found, rules::NVIDIA, &[]).is_empty());
        assert!(table(&found, rules::NVIDIA).contains(&("HMMA.16816.F32.BF16".to_owned(), 2)));
    }

    #[test]
    fn every_rule_finds_its_breach() {
        for rule in rules::NVIDIA.iter().chain(rules::AMD) {
            let kernel = match rule.kernels {
                Kernels::All => "add".to_owned(),
                Kernels::EndingIn(ends) => format!("linear_{}", ends[0]),
                Kernels::StartingWith(start) => format!("{start}36"),
            };
            let whole = rule.words.join(".");
            let (good, bad) = match rule.verdict {
                Verdict::Required => (image(&kernel, &[&whole]), image(&kernel, &["FFMA"])),
                Verdict::Forbidden => (image(&kernel, &["FFMA"]), image(&kernel, &["FFMA", &whole])),
            };
            let architecture = rule.architectures.first().unwrap_or(&"sm_90a");
            let judge = |image: &Instructions| breaches(architecture, image, std::slice::from_ref(rule), &[]);
            let elsewhere = breaches("sm_75", &bad, std::slice::from_ref(rule), &[]);
            assert_eq!(elsewhere.is_empty(), !rule.architectures.is_empty(), "{rule:?}");
            assert!(judge(&good).is_empty(), "{rule:?}");
            only(&judge(&bad), rule.reason);
            assert!(judge(&image("other_kernel_m1", &["FFMA"])).is_empty(), "{rule:?}");
        }
    }

    #[test]
    fn words_follow_each_other_with_others_between() {
        assert!(has_words("QGMMA.64x128x32.F32.E4M3.E4M3", &["QGMMA", "F32", "E4M3", "E4M3"]));
        assert!(!has_words("QGMMA.64x128x32.F32.E4M3.E5M2", &["QGMMA", "F32", "E4M3", "E4M3"]));
        assert!(has_words("LDL.LU", &["LDL"]) && !has_words("LDLX", &["LDL"]) && !has_words("X.LDL", &["LDL"]));
        assert!(!has_words("HMMA.1688.F32.BF16", &["HMMA", "16816", "F32", "BF16"]));
    }

    #[test]
    fn an_allowed_kernel_may_use_local_memory_on_its_architecture_alone() {
        let allowed = [Allowed::new("a", "sm_100a", 8, "why")];
        let spilled = image("a", &["STL", "LDL.LU"]);
        assert!(breaches("sm_100a", &spilled, rules::NVIDIA, &allowed).is_empty());
        assert_eq!(breaches("sm_90a", &spilled, rules::NVIDIA, &allowed).len(), 2);
    }

    #[test]
    fn a_rule_about_no_kernel_is_a_breach() {
        let tiles = Instructions::of_cubin(TWO_KERNELS);
        let rules: Vec<Rule> = rules::NVIDIA.iter().copied().filter(|rule| rule.words[0] == "HMMA").collect();
        let idle = idle_rules([&tiles].into_iter(), &rules);
        assert!(idle.len() == 2 && idle[0].contains("fp8_a8") && idle[1].contains("attend_"), "{idle:?}");
        let (attention, codes) = (image("attend_r4", &[]), image("linear_fp8_a8_t64", &[]));
        assert!(idle_rules([&tiles, &attention, &codes].into_iter(), &rules).is_empty());
    }
}
