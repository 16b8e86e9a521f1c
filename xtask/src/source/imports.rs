//! The modules of its own crate that a source file uses, in `use` declarations and in paths.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path from the crate's root, with its line.
pub(crate) struct Import {
    /// The line of the path.
    pub line: usize,
    /// Modules, then an item of the last one.
    pub path: Vec<String>,
}

/// All paths of this crate in the source of `module`. `children` are its submodules.
pub(crate) fn of(
    tokens: &TokenStream,
    module: &[String],
    children: &BTreeSet<String>,
) -> Vec<Import> {
    let mut walk = Walk {
        module,
        children,
        imports: Vec::new(),
    };
    walk.stream(tokens.clone());
    walk.imports
}

struct Walk<'a> {
    module: &'a [String],
    children: &'a BTreeSet<String>,
    imports: Vec<Import>,
}

impl Walk<'_> {
    fn stream(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(first) if !is_inside_path(&tokens[..at]) => {
                    let is_use = at > 0 && tokens[at - 1].to_string() == "use";
                    if let Some(start) = self.start(&first.to_string(), is_use) {
                        at = self.path(&tokens, at, start);
                        continue;
                    }
                }
                TokenTree::Group(group) => self.stream(group.stream()),
                _ => {}
            }
            at += 1;
        }
    }

    /// Where a path with this first segment starts, if it is of this crate.
    fn start(&self, first: &str, is_use: bool) -> Option<Vec<String>> {
        match first {
            "crate" => Some(Vec::new()),
            "self" if is_use => Some(self.module.to_vec()),
            "super" => Some(self.module[..self.module.len().checked_sub(1)?].to_vec()),
            _ if is_use && self.children.contains(first) => {
                Some([self.module, &[first.to_owned()]].concat())
            }
            _ => None,
        }
    }

    /// Follows a path from the segment at `at`; returns the index after it.
    fn path(&mut self, tokens: &[TokenTree], mut at: usize, mut path: Vec<String>) -> usize {
        let line = tokens[at].span().start().line;
        at += 1;
        while at + 2 < tokens.len() + 1 && is_separator(&tokens[at..]) {
            at += 2;
            match tokens.get(at) {
                Some(TokenTree::Ident(ident)) if *ident == "super" => {
                    path.pop();
                }
                Some(TokenTree::Ident(ident)) => path.push(ident.to_string()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.branches(group.stream(), &path);
                    return at + 1;
                }
                _ => break,
            }
            at += 1;
        }
        self.imports.push(Import { line, path });
        at
    }

    /// The paths in the braces of a `use` declaration.
    fn branches(&mut self, tokens: TokenStream, prefix: &[String]) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let branches = tokens.split(|token| token.to_string() == ",");
        for branch in branches.filter(|branch| !branch.is_empty()) {
            let mut path = prefix.to_vec();
            match &branch[0] {
                TokenTree::Ident(name) if *name != "self" => path.push(name.to_string()),
                _ => {}
            }
            self.path(branch, 0, path);
        }
    }
}

fn is_separator(tokens: &[TokenTree]) -> bool {
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    is_colon(tokens.first()) && is_colon(tokens.get(1))
}

/// Whether `::` or a dot precedes: then this is not the first segment of a path.
fn is_inside_path(before: &[TokenTree]) -> bool {
    let ends_with =
        |char| matches!(before.last(), Some(TokenTree::Punct(punct)) if punct.as_char() == char);
    ends_with('.') || before.len() >= 2 && is_separator(&before[before.len() - 2..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute() {
        let source = "use super::{x, y::{self, Z}}; use crate::a; use child::C; use std::fs;\n\
                      pub(super) fn f() { crate::b::g::<super::T>(self.child) }";
        let module = ["m".to_owned(), "n".to_owned()];
        let children = BTreeSet::from(["child".to_owned()]);
        let imports = of(&source.parse().unwrap(), &module, &children);
        let paths: Vec<_> = imports
            .iter()
            .map(|import| import.path.join("::"))
            .collect();
        // `pub(super)` is the parent, not an import of a sibling.
        let expected = [
            "m::x",
            "m::y",
            "m::y::Z",
            "a",
            "m::n::child::C",
            "m",
            "b::g",
            "m::T",
        ];
        assert_eq!(paths, expected);
        assert_eq!(imports[0].line, 1);
        assert_eq!(imports[6].line, 2);
    }
}
