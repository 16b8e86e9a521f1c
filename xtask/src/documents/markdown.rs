//! What a document links to, and what can be linked to in it.

use std::collections::{HashMap, HashSet};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// The links and headings of a document.
#[derive(Default)]
pub(crate) struct Markdown {
    pub(crate) links: Vec<Link>,
    /// The anchors of the headings.
    pub(crate) anchors: HashSet<String>,
}

/// A link, or an image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) line: usize,
    pub(crate) to: String,
}

impl Markdown {
    pub(crate) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        let mut headings = HashMap::new();
        // The text of the heading that is being read.
        let mut heading = None;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    found.links.push(Link {
                        line: 1 + text[..range.start].matches('\n').count(),
                        to: dest_url.into_string(),
                    });
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    let earlier = headings.entry(anchor.clone()).or_insert(0);
                    found.anchors.insert(match *earlier {
                        0 => anchor,
                        earlier => format!("{anchor}-{earlier}"),
                    });
                    *earlier += 1;
                }
                _ => {}
            }
        }
        found
    }
}

/// The anchor of a heading: the same in mdBook and in the usual forges.
fn anchor(heading: &str) -> String {
    let chars = heading.trim().chars().filter_map(|char| match char {
        '-' | '_' => Some(char),
        char if char.is_alphanumeric() => Some(char),
        char if char.is_whitespace() => Some('-'),
        _ => None,
    });
    chars.collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_with_their_lines() {
        let text = "[a](a.md) `[code](b.md)`\n\n| ![c](c.svg) |\n|---|\n| [d\ne](d.md#e) |\n\n```\n[f](f.md)\n```\n";
        let links: Vec<_> = Markdown::parse(text)
            .links
            .into_iter()
            .map(|link| (link.line, link.to))
            .collect();
        let expected = [(1, "a.md"), (3, "c.svg")].map(|(line, to)| (line, to.to_owned()));
        assert_eq!(links, expected);
        let text = "one\n[two\nthree](d.md#e)\n";
        let expected = Link {
            line: 2,
            to: "d.md#e".to_owned(),
        };
        assert_eq!(Markdown::parse(text).links, [expected]);
    }

    #[test]
    fn anchors_are_those_of_the_forges() {
        let text =
            "# `attach --dry-run`\n## 1. Why: _this_?\n## Twice\n## Twice\n```\n# none\n```\n";
        let mut anchors: Vec<_> = Markdown::parse(text).anchors.into_iter().collect();
        anchors.sort();
        let expected = ["1-why-this", "attach---dry-run", "twice", "twice-1"];
        assert_eq!(anchors, expected);
    }
}
