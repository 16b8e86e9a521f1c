//! `cargo xtask docs`: the documentation site, made with mdBook from `docs/SUMMARY.md`.
//!
//! Pages keep their paths in the repository, so that links work on a forge and in the site. mdBook reads
//! one directory only: the pages, and the files that they link to, are copied into one.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    cargo_tool::CargoTool,
    command::{display, say},
    documents::{self, markdown::Markdown},
    links::{self, Target},
    paths,
};

const MDBOOK: CargoTool = CargoTool {
    name: "mdbook",
    version: "0.5.4",
};
/// Without its web server, which takes long to compile.
const FEATURES: [&str; 3] = ["--no-default-features", "--features", "search"];
const CONFIGURATION: &str = "docs/book.toml";
const SUMMARY: &str = "docs/SUMMARY.md";

/// Builds the site into target/book.
pub(crate) fn run() -> Result<()> {
    links::check()?;
    let summary = documents::read(Path::new(SUMMARY))?;
    let pages = pages(&summary)?;
    check_completeness(&pages)?;
    let book = paths::target().join("book-source");
    if book.exists() {
        fs::remove_dir_all(&book).with_context(|| book.display().to_string())?;
    }
    copy(Path::new(CONFIGURATION), &book.join("book.toml"))?;
    let source = book.join("src");
    for file in pages.union(&files(&pages)?) {
        copy(file, &source.join(file))?;
    }
    fs::write(source.join("SUMMARY.md"), from_root(&summary))?;
    let site = paths::target().join("book");
    build(&book, &site)?;
    say(&format!("the site: {}/index.html", site.display()));
    Ok(())
}

/// The documents that the summary lists.
fn pages(summary: &str) -> Result<BTreeSet<PathBuf>> {
    let mut pages = BTreeSet::new();
    for link in Markdown::parse(summary).links {
        let target = Target::of(&link.to, Path::new(SUMMARY));
        let page = target.with_context(|| format!("{SUMMARY}: {} is not a page", link.to))?;
        ensure!(pages.insert(page.path), "{SUMMARY} lists {} twice", link.to);
    }
    Ok(pages)
}

fn check_completeness(pages: &BTreeSet<PathBuf>) -> Result<()> {
    let all = documents::all()?.into_iter();
    let missing: Vec<_> = all
        .filter(|path| path != Path::new(SUMMARY) && !pages.contains(path))
        .map(|path| path.display().to_string())
        .collect();
    ensure!(
        missing.is_empty(),
        "{SUMMARY} does not list {}",
        missing.join(", ")
    );
    Ok(())
}

/// The other files that the pages link to.
fn files(pages: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for page in pages {
        let links = Markdown::parse(&documents::read(page)?).links;
        for target in links.iter().filter_map(|link| Target::of(&link.to, page)) {
            if !documents::is_document(&target.path) {
                files.insert(target.path);
            } else if !pages.contains(&target.path) {
                let (page, target) = (page.display(), target.path.display());
                bail!("{page} links to {target}, which is no page of the site");
            }
        }
    }
    Ok(files)
}

/// The summary with links from the workspace's root, which is the book's.
fn from_root(summary: &str) -> String {
    let links = Markdown::parse(summary).links.into_iter();
    links.fold(summary.to_owned(), |text, link| {
        match Target::of(&link.to, Path::new(SUMMARY)) {
            Some(target) => {
                let path = target.path.display();
                text.replace(&format!("]({})", link.to), &format!("]({path})"))
            }
            None => text,
        }
    })
}

fn copy(file: &Path, to: &Path) -> Result<()> {
    let dir = to.parent().unwrap_or(to);
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::copy(paths::root().join(file), to)
        .with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

/// Runs mdBook, which exits with success after a warning.
fn build(book: &Path, site: &Path) -> Result<()> {
    let mut command = Command::new(MDBOOK.ensure_with(&FEATURES)?);
    command
        .arg("build")
        .arg(book)
        .arg("--dest-dir")
        .arg(site)
        .env_remove("MDBOOK_LOG")
        .stderr(Stdio::piped());
    let output = command
        .output()
        .with_context(|| format!("cannot run `{}`", display(&command)))?;
    let log = String::from_utf8_lossy(&output.stderr);
    eprint!("{log}");
    if !output.status.success() || has_warning(&log) {
        bail!("`{}`: see the messages above", display(&command));
    }
    Ok(())
}

/// Whether a line of mdBook's log has a level that needs attention.
fn has_warning(log: &str) -> bool {
    let mut levels = log
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    levels.any(|level| level == "WARN" || level == "ERROR")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str =
        "# Summary\n\n[One](../README.md)\n\n- [Two](two.md)\n  - [Three](bench/three.md)\n";

    #[test]
    fn the_summary_lists_pages_from_the_root() {
        let pages = pages(EXAMPLE).unwrap();
        let expected = ["README.md", "docs/bench/three.md", "docs/two.md"].map(PathBuf::from);
        assert_eq!(pages, BTreeSet::from(expected));
        let rewritten = from_root(EXAMPLE);
        for link in [
            "[One](README.md)",
            "[Two](docs/two.md)",
            "[Three](docs/bench/three.md)",
        ] {
            assert!(rewritten.contains(link), "{rewritten}");
        }
    }

    #[test]
    fn a_page_is_listed_once() {
        assert!(pages("- [a](a.md)\n- [b](../docs/a.md)\n").is_err());
        assert!(pages("- [a](https://example.org/a.md)\n").is_err());
    }

    #[test]
    fn warnings_are_found_in_the_log() {
        assert!(!has_warning(" INFO Book building has started\n"));
        assert!(has_warning(
            " INFO Running\n WARN unclosed HTML tag `<p>`\n"
        ));
        assert!(has_warning("ERROR no such file\n"));
    }
}
