//! What kernels take on each architecture, as a table for people.

use std::collections::BTreeMap;

use super::Vendor;
use super::manifest::{Manifest, Resources};

/// A Markdown table: a row per kernel, a column per architecture. Registers of a thread; on AMD also the waves that a SIMD
/// holds of it, as far as registers go; bytes of spills where there are some.
pub(super) fn table(vendor: Vendor, manifest: &Manifest) -> String {
    let mut text = format!("| kernel | {} |\n", vendor.architectures().join(" | "));
    text += &format!("| --- |{}\n", " --- |".repeat(vendor.architectures().len()));
    for family in &manifest.families {
        let mut rows: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
        for image in &family.images {
            for kernel in &image.kernels {
                rows.entry(&kernel.name).or_default().insert(&image.architecture, cell(&kernel.resources));
            }
        }
        for (kernel, cells) in rows {
            let cells = vendor.architectures().iter().map(|on| cells.get(on).map_or("–", String::as_str));
            text += &format!("| `{kernel}` | {} |\n", cells.collect::<Vec<_>>().join(" | "));
        }
    }
    text
}

fn cell(resources: &Resources) -> String {
    let waves = resources.waves.map(|waves| format!(" / {waves}")).unwrap_or_default();
    let spills =
        if resources.spill_bytes == 0 { String::new() } else { format!(", {} B spilled", resources.spill_bytes) };
    format!("{}{waves}{spills}", resources.registers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spills_and_waves_are_said_where_there_are_some() {
        let plain = Resources { registers: 40, ..Resources::default() };
        assert_eq!(cell(&plain), "40");
        assert_eq!(cell(&Resources { waves: Some(8), spill_bytes: 12, ..plain }), "40 / 8, 12 B spilled");
    }
}
