//! The strings of a source file, each with its line, its function and the calls that contain it.

use proc_macro2::{Delimiter, Literal, TokenStream, TokenTree};

/// A string literal or the text of a doc comment.
pub(crate) struct Text {
    /// The line of the literal.
    pub line: usize,
    /// Without quotes and escapes; with the placeholders of `format!`.
    pub content: String,
    /// The function that contains it; empty outside of functions.
    pub function: String,
    /// Calls, macros (`warn!`) and attributes (`#`) around it, the innermost last.
    pub callers: Vec<String>,
}

impl Text {
    /// Whether it is an argument of one of these, directly or not.
    pub(crate) fn is_in(&self, callers: &[&str]) -> bool {
        self.callers
            .iter()
            .any(|caller| callers.contains(&caller.as_str()))
    }

    /// Whether it is a doc comment.
    pub(crate) fn is_doc(&self) -> bool {
        self.callers.ends_with(&["#".to_owned(), "doc".to_owned()])
    }
}

/// All strings, in the order of the source.
pub(crate) fn of(tokens: &TokenStream) -> Vec<Text> {
    let mut walk = Walk::default();
    walk.stream(tokens.clone());
    walk.texts
}

#[derive(Default)]
struct Walk {
    texts: Vec<Text>,
    function: String,
    callers: Vec<String>,
}

impl Walk {
    fn stream(&mut self, tokens: TokenStream) {
        // The last identifier, with `!` if that follows.
        let mut name = String::new();
        // The function whose body follows.
        let mut declared = None;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if name == "fn" {
                        declared = Some(ident.to_string());
                    }
                    name = ident.to_string();
                }
                TokenTree::Punct(punct) => match punct.as_char() {
                    // A macro, and not `#![doc = "text"]`.
                    '!' if !name.is_empty() && name != "#" => name.push('!'),
                    '!' => {}
                    '#' => "#".clone_into(&mut name),
                    ';' => {
                        declared = None;
                        name.clear();
                    }
                    // `#[doc = "text"]`
                    '=' if name == "doc" => {}
                    _ => name.clear(),
                },
                TokenTree::Literal(literal) => self.literal(&literal, &name),
                TokenTree::Group(group) => {
                    let function = match group.delimiter() {
                        Delimiter::Brace => declared.take(),
                        _ => None,
                    };
                    self.group(group.stream(), std::mem::take(&mut name), function);
                }
            }
        }
    }

    fn group(&mut self, tokens: TokenStream, caller: String, function: Option<String>) {
        let outer = function.map(|function| std::mem::replace(&mut self.function, function));
        self.callers.push(caller);
        self.stream(tokens);
        self.callers.pop();
        if let Some(outer) = outer {
            self.function = outer;
        }
    }

    fn literal(&mut self, literal: &Literal, name: &str) {
        let Ok(string) = syn::parse_str::<syn::LitStr>(&literal.to_string()) else {
            return;
        };
        let mut callers: Vec<_> = self.callers.clone();
        if name == "doc" {
            callers.push(name.to_owned());
        }
        callers.retain(|caller| !caller.is_empty());
        self.texts.push(Text {
            line: literal.span().start().line,
            content: string.value(),
            function: self.function.clone(),
            callers,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_have_the_calls_that_contain_them() {
        let source = "//! A doc.\n fn f() { g(1).with_context(|| format!(\"a {x}\\n\")); }\n\
                      #[error(\"b\")] struct S; const C: &str = r#\"c\"#;";
        let texts = of(&source.parse().unwrap());
        let found: Vec<_> = texts
            .iter()
            .map(|text| (text.content.as_str(), text.function.as_str(), text.line))
            .collect();
        let expected = [
            (" A doc.", "", 1),
            ("a {x}\n", "f", 2),
            ("b", "", 3),
            ("c", "", 3),
        ];
        assert_eq!(found, expected);
        assert!(texts[0].is_doc());
        assert_eq!(texts[1].callers, ["with_context", "format!"]);
        assert_eq!(texts[2].callers, ["#", "error"]);
        assert!(texts[3].callers.is_empty());
    }
}
