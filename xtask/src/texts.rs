//! `cargo xtask texts`: prints every text of the product, for review.
//!
//! The help is the binary's output; everything else is found in the source: string literals, sorted
//! by the call, macro or attribute that contains them. Not included: texts of dependencies (clap's
//! errors, kube's warnings), of the kernel (errno), and the values of placeholders.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build,
    command::read,
    source::{self, strings::Text},
};

const SOURCES: [&str; 2] = ["interceptor/src", "interceptor-ebpf/src"];
/// The width of a usual terminal.
const COLUMNS: &str = "100";

/// The purpose of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// The reason of a Kubernetes Event.
    Event,
    Error,
    Log,
    /// Printed to standard output or standard error.
    Output,
    Metric,
    /// Any other text of several words: notes, reasons, parts of other texts.
    Other,
    /// The message of a panic, which is a bug if a user sees it.
    Panic,
}

impl Kind {
    const ALL: [(Self, &'static str); 7] = [
        (
            Self::Event,
            "Events: reason, and the texts of the function that publishes it",
        ),
        (Self::Error, "Errors"),
        (Self::Log, "Log lines"),
        (Self::Output, "Output of commands"),
        (Self::Metric, "Metrics: names and help"),
        (Self::Other, "Notes, reasons and parts of other texts"),
        (Self::Panic, "Panics"),
    ];

    /// Calls, macros and attributes by which a text is recognized; the first kind wins.
    const CALLERS: [(Self, &'static [&'static str]); 5] = [
        (Self::Log, &["error!", "warn!", "info!", "debug!", "trace!"]),
        (
            Self::Error,
            &[
                "error",
                "bail!",
                "ensure!",
                "anyhow!",
                "context",
                "with_context",
                "Err",
                "other",
                "map_err",
                "ok_or",
                "ok_or_else",
            ],
        ),
        (
            Self::Output,
            &[
                "message!",
                "print!",
                "println!",
                "eprint!",
                "eprintln!",
                "print",
                "writeln!",
            ],
        ),
        (
            Self::Metric,
            &["register", "register_with_unit", "encode_descriptor"],
        ),
        (
            Self::Panic,
            &[
                "expect",
                "panic!",
                "unreachable!",
                "assert!",
                "assert_eq!",
                "debug_assert!",
            ],
        ),
    ];

    /// `None` if no user reads the text.
    fn of(text: &Text, path: &Path) -> Option<Self> {
        let has_letters = text.content.contains(char::is_alphabetic);
        if !has_letters || text.is_doc() || text.is_in(&["#"]) && !text.is_in(&["error"]) {
            return None;
        }
        if path.starts_with("interceptor/src/agent") && is_event_reason(text) {
            return Some(Self::Event);
        }
        let known = Self::CALLERS
            .iter()
            .find(|(_, callers)| text.is_in(callers));
        match known {
            Some((kind, _)) => Some(*kind),
            None => has_words(&text.content).then_some(Self::Other),
        }
    }
}

/// Whether a text has at least two words; a path, a format or a flag has not.
fn has_words(text: &str) -> bool {
    let is_word = |word: &&str| word.len() > 1 && word.chars().all(char::is_alphabetic);
    text.split_whitespace().filter(is_word).count() > 1
}

/// Whether a text is a CamelCase word, like the reasons of Kubernetes, that is passed to a function
/// which publishes an Event.
fn is_event_reason(text: &Text) -> bool {
    const PUBLISH: [&str; 4] = ["event", "notify", "publish", "tell"];
    let is_published = text
        .callers
        .last()
        .is_some_and(|caller| PUBLISH.contains(&caller.as_str()));
    let text = &text.content;
    is_published
        && text.starts_with(|char: char| char.is_ascii_uppercase())
        && text.chars().all(char::is_alphanumeric)
        && text
            .chars()
            .nth(1)
            .is_some_and(|char| char.is_ascii_lowercase())
}

/// Prints all texts. The help pages, which require a build, only if `help`.
pub(crate) fn run(help: bool) -> Result<()> {
    if help {
        print_help()?;
    }
    for (kind, entries) in found()? {
        let heading = Kind::ALL.iter().find(|(known, _)| *known == kind);
        println!("\n===== {}", heading.map_or("", |(_, heading)| heading));
        for entry in entries {
            println!("{entry}");
        }
    }
    Ok(())
}

fn print_help() -> Result<()> {
    let binary = build::development()?;
    let help = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        read(
            command
                .args(arguments)
                .arg("--help")
                .env("COLUMNS", COLUMNS),
        )
    };
    let main = help(&[])?;
    println!("===== interceptor --help\n{main}");
    for command in commands(&main) {
        let text = help(&[command]).with_context(|| format!("no help of `{command}`"))?;
        println!("===== interceptor {command} --help\n{text}");
    }
    Ok(())
}

/// The commands that a help page lists.
fn commands(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let entries = lines.take_while(|line| !line.is_empty());
    let names = entries.filter_map(|line| line.strip_prefix("  "));
    names
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

/// All texts of the sources, by kind, as lines.
fn found() -> Result<BTreeMap<Kind, Vec<String>>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for dir in SOURCES {
        for file in source::of_crate(Path::new(dir))? {
            let texts = source::strings::of(&file.tokens);
            for text in &texts {
                let Some(kind) = Kind::of(text, &file.path) else {
                    continue;
                };
                let mut line = describe(&file.path, text);
                if kind == Kind::Event {
                    line += &notes(text, &texts);
                }
                found.entry(kind).or_default().push(line);
            }
        }
    }
    Ok(found)
}

fn describe(path: &Path, text: &Text) -> String {
    let level = text
        .callers
        .iter()
        .find(|caller| Kind::CALLERS[0].1.contains(&caller.as_str()));
    let level = level.map_or(String::new(), |level| {
        format!("{} ", level.to_uppercase().replace('!', ""))
    });
    format!(
        "{}:{}: {level}{}",
        path.display(),
        text.line,
        text.content.trim_end()
    )
}

/// The other texts of the function that publishes an Event, one of which is its note.
fn notes(event: &Text, texts: &[Text]) -> String {
    let is_note = |text: &&Text| {
        !event.function.is_empty() && text.function == event.function && has_words(&text.content)
    };
    let notes = texts.iter().filter(is_note);
    let lines: Vec<_> = notes
        .map(|text| format!("\n    {}: {}", text.line, text.content))
        .collect();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{documents, source::strings};

    fn kinds(source: &str) -> Vec<Option<Kind>> {
        let texts = strings::of(&source.parse().unwrap());
        let path = Path::new("interceptor/src/agent/index.rs");
        texts.iter().map(|text| Kind::of(text, path)).collect()
    }

    #[test]
    fn texts_are_sorted_by_the_call_that_contains_them() {
        let source = r#"
            /// A doc comment.
            #[error("no {0}")] struct A;
            fn f() {
                warn!("a {b}"); x.with_context(|| format!("cannot read"));
                message!("captured"); entry.tell(true, "CaptureFailed", note);
                x.expect("never"); let note = "two words"; let flag = "--flag";
            }"#;
        let expected = [
            None,
            Some(Kind::Error),
            Some(Kind::Log),
            Some(Kind::Error),
            Some(Kind::Output),
            Some(Kind::Event),
            Some(Kind::Panic),
            Some(Kind::Other),
            None,
        ];
        assert_eq!(kinds(source), expected);
    }

    #[test]
    fn commands_are_read_from_the_help_page() {
        let help =
            "Usage\n\nCommands:\n  agent   Run\n          on\n  help    Print\n\nOptions:\n  -h";
        assert_eq!(commands(help), ["agent"]);
    }

    /// The contents of all texts of a kind.
    fn contents(kind: Kind) -> Vec<String> {
        let files = SOURCES.map(|dir| source::of_crate(Path::new(dir)).unwrap());
        let texts = files.iter().flatten().flat_map(|file| {
            let texts = strings::of(&file.tokens).into_iter();
            texts.filter(|text| Kind::of(text, &file.path) == Some(kind))
        });
        texts.map(|text| text.content).collect()
    }

    #[test]
    fn every_event_of_the_agent_has_its_row() {
        let document = documents::read(Path::new("docs/deploy.md")).unwrap();
        let events = contents(Kind::Event);
        assert!(events.len() > 5, "{events:?}");
        for event in events {
            let row = format!("| `{event}` | ");
            assert!(document.contains(&row), "docs/deploy.md: no {row}");
        }
    }

    #[test]
    fn every_metric_has_its_row() {
        const PREFIXES: [&str; 4] = [
            "interceptor_",
            "interceptor_injection_",
            "interceptor_webhook_",
            "",
        ];
        let documents = ["docs/deploy.md", "docs/injection.md"]
            .map(|path| documents::read(Path::new(path)).unwrap())
            .concat();
        let mut metrics = contents(Kind::Metric);
        // Without helps, and names that are made of parts.
        metrics.retain(|text| !text.contains([' ', '{']));
        assert!(metrics.len() > 20, "{metrics:?}");
        for metric in metrics {
            let is_there = |prefix| documents.contains(&format!("`{prefix}{metric}"));
            assert!(PREFIXES.iter().any(is_there), "no row of {metric}");
        }
    }
}
