//! The notes of a release: the entry of its version in CHANGELOG.md.

use anyhow::{Context as _, Result, ensure};

use super::VERSION;
use crate::documents;

const CHANGELOG: &str = "CHANGELOG.md";

/// The notes for a tag, which must be that of this version.
pub(super) fn of_tag(tag: &str) -> Result<String> {
    ensure!(
        tag == format!("v{VERSION}"),
        "the tag {tag} is not that of the version in Cargo.toml: expected v{VERSION}"
    );
    entry(&documents::read(CHANGELOG.as_ref())?, VERSION)
}

/// The text of a version's entry, whose heading has the date: `## [VERSION] - YYYY-MM-DD`.
fn entry(changelog: &str, version: &str) -> Result<String> {
    let start = format!("## [{version}] - ");
    let mut lines = changelog
        .lines()
        .skip_while(|line| !line.starts_with(&start));
    let heading = lines.next().with_context(|| {
        format!("{CHANGELOG} has no entry for this version: expected the heading `{start}DATE`")
    })?;
    let date = heading.trim_start_matches(&start);
    ensure!(
        is_date(date),
        "{CHANGELOG}: the date of version {version} is {date:?}: expected YYYY-MM-DD"
    );
    let text: Vec<_> = lines.take_while(|line| !line.starts_with("## ")).collect();
    Ok(text.join("\n").trim().to_owned() + "\n")
}

fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: &str = "\
# Changelog

## [Unreleased]

- new

## [1.2.0] - 2026-01-31

### Fixed

- a bug

## [1.1.0] - soon

- old
";

    #[test]
    fn the_entry_of_a_version_ends_at_the_next() {
        assert_eq!(entry(CHANGELOG, "1.2.0").unwrap(), "### Fixed\n\n- a bug\n");
    }

    #[test]
    fn a_version_without_an_entry_or_a_date_is_refused() {
        entry(CHANGELOG, "1.3.0").unwrap_err();
        entry(CHANGELOG, "1.1.0").unwrap_err();
    }

    #[test]
    fn this_version_can_be_tagged() {
        assert!(!of_tag(&format!("v{VERSION}")).unwrap().is_empty());
        of_tag("v0.0.0").unwrap_err();
    }
}
