//! Kernel sources: one file per family, and what they include.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{KernelsError, Vendor};

/// A family's source and everything it includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Family {
    /// The file's name without `.cu`.
    pub(super) name: String,
    pub(super) text: String,
    /// Included files by the name they are included by.
    pub(super) headers: BTreeMap<String, String>,
}

impl Family {
    pub(super) fn file_name(&self) -> String {
        format!("{}.cu", self.name)
    }

    /// Source and headers in one text, for a hash: each with its name and length before it.
    pub(super) fn whole(&self) -> String {
        let header = |(name, text): (&String, &String)| format!("{name} {}\n{text}", text.len());
        let headers: String = self.headers.iter().map(header).collect();
        format!("{} {}\n{}{headers}", self.file_name(), self.text.len(), self.text)
    }
}

/// Reads every `.cu` file of a folder that is for a vendor's devices, in order of names.
pub(super) fn read(folder: &Path, vendor: Vendor) -> Result<Vec<Family>, KernelsError> {
    let of_folder = |error| KernelsError::File { path: folder.into(), error };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(of_folder)? {
        let name = entry.map_err(of_folder)?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".cu").map(str::to_owned));
    }
    names.retain(|name| !vendor.architectures_of(name).is_empty());
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let path = folder.join(format!("{name}.cu"));
            let text = fs::read_to_string(&path).map_err(|error| KernelsError::File { path: path.clone(), error })?;
            let mut family = Family { headers: BTreeMap::new(), name, text };
            collect_headers(folder, vendor, (&family.file_name(), &family.text), &mut family.headers)?;
            Ok(family)
        })
        .collect()
}

/// Adds what a file includes, given its name and text, and what that includes.
fn collect_headers(
    folder: &Path,
    vendor: Vendor,
    (file, text): (&str, &str),
    headers: &mut BTreeMap<String, String>,
) -> Result<(), KernelsError> {
    for included in includes(text) {
        if !vendor.includes(included) || headers.contains_key(included) {
            continue;
        }
        let Ok(header) = fs::read_to_string(folder.join(included)) else {
            return Err(KernelsError::Include { file: file.into(), included: included.into() });
        };
        headers.insert(included.to_owned(), header.clone());
        collect_headers(folder, vendor, (included, &header), headers)?;
    }
    Ok(())
}

/// Names in `#include "…"` lines. System headers (`<…>`) are none of ours.
fn includes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let directive = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
        directive.trim_start().strip_prefix('"')?.split('"').next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_found_however_they_are_written() {
        let text = "#include \"gk.h\"\n  #  include \"mma.h\" // tiles\n#include <cstdint>\n// #include \"no.h\"\nint include;";
        assert_eq!(includes(text).collect::<Vec<_>>(), ["gk.h", "mma.h"]);
    }

    #[test]
    fn the_hashed_text_tells_files_apart() {
        let family = |text: &str, header: &str| Family {
            name: "norm".into(),
            text: text.into(),
            headers: BTreeMap::from([("gk.h".into(), header.into())]),
        };
        assert_ne!(family("ab", "c").whole(), family("a", "bc").whole());
    }
}
