//! The workspace's Rust sources as tokens, without test code.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use proc_macro2::{Group, TokenStream, TokenTree};

use crate::paths;

pub(crate) mod imports;
pub(crate) mod strings;

/// One source file.
pub(crate) struct File {
    /// The path from the workspace's root.
    pub path: PathBuf,
    /// The file's module, from its crate's root.
    pub module: Vec<String>,
    /// Without test modules and other items under `#[cfg(test)]`.
    pub tokens: TokenStream,
}

/// All modules of the crate in this directory, which contains the crate's root file. Modules named
/// `tests` are left out.
pub(crate) fn of_crate(dir: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for path in rust_files(&paths::root().join(dir))? {
        let relative = path.strip_prefix(paths::root()).unwrap_or(&path).to_owned();
        let Some(module) = module(relative.strip_prefix(dir).unwrap_or(&relative)) else {
            continue;
        };
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", relative.display()))?;
        let tokens: TokenStream = text
            .parse()
            .map_err(|error| anyhow!("{}: not Rust: {error}", relative.display()))?;
        files.push(File {
            path: relative,
            module,
            tokens: without_tests(tokens),
        });
    }
    Ok(files)
}

/// The Rust files below a directory, sorted.
fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The module of a file, by its path from the crate's root; none for test modules.
fn module(file: &Path) -> Option<Vec<String>> {
    let mut module: Vec<_> = file
        .with_extension("")
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    if module.iter().any(|name| name == "tests") {
        return None;
    }
    // The root, or the directory's own module. (A binary in `bin` is a crate of one file.)
    let last = module.last().map(String::as_str);
    if last == Some("mod") || module.len() == 1 && matches!(last, Some("lib" | "main")) {
        module.pop();
    }
    Some(module)
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests(tokens: TokenStream) -> TokenStream {
    let mut kept = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if tokens.peek().is_some_and(is_cfg_test) {
                    skip_item(&mut tokens);
                } else {
                    kept.push(punct.into());
                }
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), without_tests(group.stream()));
                inner.set_span(group.span());
                kept.push(inner.into());
            }
            token => kept.push(token),
        }
    }
    kept.into_iter().collect()
}

fn is_cfg_test(attribute: &TokenTree) -> bool {
    attribute.to_string().replace(char::is_whitespace, "") == "[cfg(test)]"
}

/// An item ends with a semicolon or a block.
fn skip_item(tokens: &mut impl Iterator<Item = TokenTree>) {
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ';' => return,
            TokenTree::Group(group) if group.delimiter() == proc_macro2::Delimiter::Brace => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_by_their_files() {
        let of = |path: &str| module(Path::new(path));
        let names = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
        assert_eq!(of("lib.rs"), names(&[]));
        assert_eq!(of("main.rs"), names(&[]));
        assert_eq!(of("agent.rs"), names(&["agent"]));
        assert_eq!(of("agent/mod.rs"), names(&["agent"]));
        assert_eq!(of("agent/main.rs"), names(&["agent", "main"]));
        assert_eq!(of("agent/index/tests.rs"), None);
    }

    #[test]
    fn test_code_is_left_out() {
        let source =
            "#[cfg(test)] mod tests { fn a() {} } #[cfg(unix)] fn b() { #[cfg(test)] c(); d(); }";
        let kept = without_tests(source.parse().unwrap()).to_string();
        let expected: TokenStream = "#[cfg(unix)] fn b() { d(); }".parse().unwrap();
        assert_eq!(kept, expected.to_string());
    }
}
