//! Streams of Kubernetes objects in YAML or JSON.
//!
//! A stream is cut into pieces. What does not change is written as it was read, byte by byte. A
//! changed YAML document is edited in place: comments, key order and quotes of what does not change
//! stay. Only a document that cannot be edited that way is written again as a whole.

use serde_json::Value;

mod edit;
mod json;
mod tree;
mod yaml;

/// One document and its text.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    /// The text, without separators.
    pub text: &'a str,
    /// The line of the stream on which the text begins, from 1.
    pub line: usize,
    /// The object.
    pub value: Value,
    format: Format,
    /// Whether the text begins on the line of its separator.
    on_separator: bool,
}

/// The format of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML
    Yaml,
    /// JSON
    Json,
}

/// A part of a stream.
#[derive(Clone, Debug)]
pub enum Piece<'a> {
    /// Separators, and comments and spaces between documents.
    Verbatim(&'a str),
    /// An object.
    Document(Document<'a>),
}

/// A stream that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct Unreadable {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
}

/// The new text of a changed document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text, without separators.
    pub text: String,
    /// Whether comments are lost.
    pub comments_lost: bool,
}

/// Cuts `text` into pieces. Together they are the text.
pub fn parse(text: &str) -> Result<Vec<Piece<'_>>, Unreadable> {
    let mut pieces = Vec::new();
    let mut line = 1;
    for part in yaml::split(text) {
        match part {
            yaml::Part::Separator(text) => {
                pieces.push(Piece::Verbatim(text));
                line += lines(text);
            }
            yaml::Part::Document(text) => {
                read(text, line, &mut pieces)?;
                line += lines(text);
            }
        }
    }
    Ok(pieces)
}

/// A problem without the position at its end, which is not that in the stream.
fn without_position(problem: &str) -> String {
    let end = problem.rfind(" at line ").unwrap_or(problem.len());
    problem[..end].to_owned()
}

fn lines(text: &str) -> usize {
    text.matches('\n').count()
}

fn read<'a>(text: &'a str, line: usize, pieces: &mut Vec<Piece<'a>>) -> Result<(), Unreadable> {
    if text.trim_start().starts_with('{')
        && let Some(documents) = json::read(text, line)?
    {
        pieces.extend(documents);
        return Ok(());
    }
    if yaml::is_blank(text) {
        pieces.push(Piece::Verbatim(text));
        return Ok(());
    }
    let on_separator = matches!(pieces.last(), Some(Piece::Verbatim("---")));
    pieces.push(Piece::Document(Document {
        text,
        line,
        value: yaml::value(text).map_err(|error| error.below(line, on_separator))?,
        format: Format::Yaml,
        on_separator,
    }));
    Ok(())
}

impl Unreadable {
    /// The same problem in a document that begins on `line` of its stream, after a `---` or not.
    fn below(self, line: usize, on_separator: bool) -> Self {
        let is_shifted = on_separator && self.line == 1;
        Self {
            line: self.line + line - 1,
            column: self.column + if is_shifted { "---".len() } else { 0 },
            ..self
        }
    }
}

impl Document<'_> {
    /// The document's text with `value` in place of its own.
    #[must_use]
    pub fn render(&self, value: &Value) -> Rendered {
        let kept = |text| Rendered {
            text,
            comments_lost: false,
        };
        if *value == self.value {
            return kept(self.text.to_owned());
        }
        if self.format == Format::Json {
            return kept(json::render(self.text, value));
        }
        if let Some(text) = edit::edited(self.text, &self.value, value) {
            return kept(text);
        }
        Rendered {
            text: self.whole(value),
            comments_lost: self.text.contains('#'),
        }
    }

    fn whole(&self, value: &Value) -> String {
        let mut text = yaml::render(value);
        if self.on_separator {
            text.insert(0, '\n');
        }
        if !self.text.ends_with('\n') {
            text.truncate(text.trim_end().len());
        }
        text
    }

    /// The line of the stream on which the node at the JSON pointer `pointer` begins; of its
    /// nearest parent if the node does not exist.
    #[must_use]
    pub fn line_of(&self, pointer: &str) -> usize {
        let path = pointer.split('/').skip(1);
        let path: Vec<_> = path
            .map(|key| key.replace("~1", "/").replace("~0", "~"))
            .collect();
        let offset = tree::parse(self.text).map_or(0, |tree| tree.offset_of(&path));
        self.line + lines(self.text.get(..offset).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
