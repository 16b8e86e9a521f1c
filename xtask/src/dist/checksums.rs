//! The checksums of a release's files, in the format of `sha256sum`.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::File;

/// The name of their file.
pub(super) const NAME: &str = "SHA256SUMS";

/// The checksums by the names of files.
#[derive(Debug)]
pub(super) struct Checksums(BTreeMap<String, String>);

impl Checksums {
    pub(super) fn of(files: &[File]) -> Self {
        let sum = |file: &File| format!("{:x}", Sha256::digest(&file.content));
        Self(
            files
                .iter()
                .map(|file| (file.name.clone(), sum(file)))
                .collect(),
        )
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the checksums {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let sums = text.lines().map(|line| {
            let (sum, name) = line
                .split_once("  ")
                .with_context(|| format!("not a line of `sha256sum`: {line}"))?;
            Ok((name.to_owned(), sum.to_owned()))
        });
        Ok(Self(sums.collect::<Result<_>>()?))
    }

    /// Fails, with the names of the files that differ, unless these are the same.
    pub(super) fn verify(&self, built: &Self) -> Result<()> {
        let names = self.0.keys().chain(built.0.keys());
        let mut different: Vec<_> = names
            .filter(|name| self.0.get(*name) != built.0.get(*name))
            .map(String::as_str)
            .collect();
        different.sort_unstable();
        different.dedup();
        ensure!(
            different.is_empty(),
            "not reproduced: {}. RELEASING.md says what the bytes depend on",
            different.join(", ")
        );
        Ok(())
    }
}

impl fmt::Display for Checksums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(name, sum)| writeln!(f, "{sum}  {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(files: &[(&str, &str)]) -> Checksums {
        let file = |(name, content): &(&str, &str)| File {
            name: (*name).to_owned(),
            content: content.as_bytes().to_vec(),
        };
        Checksums::of(&files.iter().map(file).collect::<Vec<_>>())
    }

    #[test]
    fn they_are_those_of_sha256sum() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sums(&[("a", "")]).to_string(), format!("{empty}  a\n"));
    }

    #[test]
    fn written_ones_are_read() {
        let written = sums(&[("a", "1"), ("b", "2")]);
        let read = Checksums::parse(&written.to_string()).unwrap();
        read.verify(&written).unwrap();
        Checksums::parse("text").unwrap_err();
    }

    #[test]
    fn files_that_differ_are_named() {
        let released = sums(&[("changed", "1"), ("missing", "2"), ("same", "3")]);
        let built = sums(&[("changed", "2"), ("new", "2"), ("same", "3")]);
        let error = released.verify(&built).unwrap_err().to_string();
        assert!(
            error.contains("not reproduced: changed, missing, new."),
            "{error}"
        );
    }
}
