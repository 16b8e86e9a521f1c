//! Links between the documents, and to other files of the repository.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

use anyhow::{Result, ensure};

use crate::{
    command::say,
    documents::{self, markdown::Markdown},
    paths,
};

/// What a link to a file of the repository names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// From the workspace's root.
    pub(crate) path: PathBuf,
    pub(crate) anchor: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// The target of a link in a document; none if it is elsewhere on the web.
    pub(crate) fn of(link: &'a str, document: &Path) -> Option<Self> {
        if link.contains("://") || link.starts_with("mailto:") {
            return None;
        }
        let (path, anchor) = match link.split_once('#') {
            Some((path, anchor)) => (path, Some(anchor)),
            None => (link, None),
        };
        let path = match (path, document.parent()) {
            ("", _) | (_, None) => document.to_owned(),
            (path, Some(dir)) => normal(&dir.join(path)),
        };
        Some(Self { path, anchor })
    }
}

/// Fails if a link of a document has no target.
pub(crate) fn check() -> Result<()> {
    let mut all = HashMap::new();
    for path in documents::all()? {
        let text = documents::read(&path)?;
        all.insert(path, Markdown::parse(&text));
    }
    let mut dead: Vec<_> = all
        .iter()
        .flat_map(|(path, document)| {
            let all = &all;
            document.links.iter().filter_map(move |link| {
                let problem = problem(&Target::of(&link.to, path)?, all)?;
                Some((path, link.line, &link.to, problem))
            })
        })
        .collect();
    dead.sort();
    for (path, line, to, problem) in &dead {
        say(&format!("{}:{line}: \"{to}\": {problem}", path.display()));
    }
    ensure!(dead.is_empty(), "{} dead link(s)", dead.len());
    Ok(())
}

/// Why the target cannot be reached, on a forge and in the built site.
fn problem(target: &Target<'_>, all: &HashMap<PathBuf, Markdown>) -> Option<String> {
    let path = &target.path;
    let file = paths::root().join(path);
    if path.starts_with("..") || !file.exists() {
        return Some(format!("there is no {}", path.display()));
    }
    if file.is_dir() {
        return Some("is a directory, which has no page: link to a file".to_owned());
    }
    let anchor = target.anchor?;
    let has_anchor = all
        .get(path)
        .is_some_and(|document| document.anchors.contains(anchor));
    (!has_anchor).then(|| format!("no heading of {} has this anchor", path.display()))
}

/// The path without `..`, except at its start.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => {
                normal.pop();
            }
            component => normal.push(component),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_relative_to_the_document() {
        let of = |link| {
            let target = Target::of(link, Path::new("docs/bench/README.md"))?;
            Some((target.path.display().to_string(), target.anchor))
        };
        let found = |path: &str, anchor| Some((path.to_owned(), anchor));
        assert_eq!(of("connect.svg"), found("docs/bench/connect.svg", None));
        assert_eq!(of("../deploy.md#a"), found("docs/deploy.md", Some("a")));
        assert_eq!(of("#a"), found("docs/bench/README.md", Some("a")));
        assert_eq!(of("../../../a"), found("../a", None));
        assert_eq!(of("https://example.org/a.md"), None);
    }

    #[test]
    fn dead_links_have_a_problem() {
        let all = HashMap::from([("README.md".into(), Markdown::parse("# Some heading\n"))]);
        let is_dead =
            |link| problem(&Target::of(link, Path::new("README.md")).unwrap(), &all).is_some();
        assert!(!is_dead("#some-heading"));
        assert!(!is_dead("docs/deploy.md"));
        assert!(is_dead("#other-heading"));
        assert!(is_dead("docs/no-such.md"));
        assert!(is_dead("docs"));
        assert!(is_dead(".."));
    }
}
