//! Words that the product's texts and documents must not contain, listed in `xtask/words.txt`.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::{
    command::say,
    documents,
    source::{self, File, strings},
};

const LIST: &str = include_str!("../words.txt");
/// Crates whose texts users read.
const CRATES: [&str; 2] = ["interceptor/src", "interceptor-ebpf/src"];
/// Documents that quote the words on purpose.
const EXCEPT: [&str; 1] = ["docs/glossary.md"];

/// Words, and what to write instead of any of them.
struct Rule<'a> {
    words: Vec<String>,
    instead: &'a str,
}

/// Fails if a text contains a word of the list.
pub(crate) fn check() -> Result<()> {
    let rules = rules(LIST)?;
    let mut count = 0;
    let mut report = |path: &Path, line: usize, text: &str| {
        for (word, instead) in find(&rules, text) {
            let path = path.display();
            say(&format!("{path}:{line}: \"{word}\": write {instead}"));
            count += 1;
        }
    };
    for dir in CRATES {
        for file in source::of_crate(Path::new(dir))? {
            for (line, text) in texts(&file) {
                report(&file.path, line, &text);
            }
        }
    }
    for path in documents::all()? {
        if EXCEPT.iter().any(|except| path == Path::new(except)) {
            continue;
        }
        let text = documents::read(&path)?;
        for (index, line) in text.lines().enumerate() {
            report(&path, index + 1, &without_code(line));
        }
    }
    ensure!(
        count == 0,
        "{count} word(s) of xtask/words.txt in texts that users read"
    );
    Ok(())
}

/// Strings, and the doc comments that clap prints as help.
fn texts(file: &File) -> Vec<(usize, String)> {
    let has_help = derives_help(&file.tokens.to_string());
    let mut texts = strings::of(&file.tokens);
    texts.retain(|text| !is_for_developers(text) && (has_help || !text.is_doc()));
    texts
        .into_iter()
        .map(|text| (text.line, text.content))
        .collect()
}

fn derives_help(source: &str) -> bool {
    ["Args", "Parser", "Subcommand", "ValueEnum"]
        .iter()
        .any(|name| source.contains(&format!("{name},")) || source.contains(&format!("{name})")))
}

/// Reasons of lints.
fn is_for_developers(text: &strings::Text) -> bool {
    text.is_in(&["#"]) && text.is_in(&["expect", "allow"])
}

/// A line of Markdown without `code`, which may quote old names.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

fn rules(list: &str) -> Result<Vec<Rule<'_>>> {
    let lines = list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (words, instead) = line
                .split_once(": ")
                .with_context(|| format!("xtask/words.txt: {line:?} is not WORDS: INSTEAD"))?;
            let words = words.split(',').map(|word| word.trim().to_lowercase());
            Ok(Rule {
                words: words.collect(),
                instead,
            })
        })
        .collect()
}

/// The words of the list in a text, each with what to write instead.
fn find<'a>(rules: &'a [Rule<'_>], text: &str) -> Vec<(&'a str, &'a str)> {
    // Words, each between two blanks.
    let is_letter = |char: char| char.is_alphanumeric() || char == '_';
    let words: Vec<_> = text
        .split(|char| !is_letter(char))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let text = format!(" {} ", words.join(" "));
    let rules = rules.iter().flat_map(|rule| {
        let words = rule.words.iter().map(String::as_str);
        words.map(|word| (word, rule.instead))
    });
    rules
        .filter(|(word, _)| text.contains(&format!(" {word} ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn whole_words_are_found_in_any_case() {
        let rules = rules("# comment\n\ntold, tells: report\nbecomes of: is handled\n").unwrap();
        let found = |text| find(&rules, text);
        assert_eq!(found("It Told: nothing"), [("told", "report")]);
        assert_eq!(
            found("what\nbecomes   of it"),
            [("becomes of", "is handled")]
        );
        assert!(found("untold, told_off, becomes often").is_empty());
    }

    #[test]
    fn code_in_documents_is_not_checked() {
        assert_eq!(without_code("`heard` is now `ok`."), "  is now  .");
        assert_eq!(without_code("no code"), "no code");
    }

    #[test]
    fn the_list_is_valid_and_names_no_word_twice() {
        let rules = rules(LIST).unwrap();
        let mut words: Vec<_> = rules.iter().flat_map(|rule| &rule.words).collect();
        let count = words.len();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), count);
        for rule in &rules {
            assert!(find(&rules, rule.instead).is_empty(), "{}", rule.instead);
        }
    }

    #[test]
    fn help_is_read_from_files_that_derive_it() {
        let of = |source: &str| File {
            path: PathBuf::new(),
            module: Vec::new(),
            tokens: source.parse().unwrap(),
        };
        let lines = |source| texts(&of(source)).len();
        assert_eq!(lines("/// Doc.\n#[derive(Args)] struct A;"), 1);
        assert_eq!(lines("/// Doc.\n#[derive(Debug)] struct A;"), 0);
        assert_eq!(
            lines("#[expect(dead_code, reason = \"r\")] const A: &str = \"a\";"),
            1
        );
    }
}
