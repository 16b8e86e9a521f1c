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

/// A part of a stream that can be read independently of the others.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    text: &'a str,
    /// The line on which it begins, from 1.
    line: usize,
    kind: PartKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartKind {
    Separator,
    Documents {
        /// Whether the first document begins on the line of its separator.
        on_separator: bool,
    },
}

/// Cuts `text` into pieces. Together they are the text.
pub fn parse(text: &str) -> Result<Vec<Piece<'_>>, Unreadable> {
    let pieces = parts(text)
        .iter()
        .map(Part::read)
        .collect::<Result<Vec<_>, _>>();
    Ok(pieces?.concat())
}

/// Cuts `text` at the separators of its documents.
#[must_use]
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut line = 1;
    let mut on_separator = false;
    for part in yaml::split(text) {
        let (text, kind) = match part {
            yaml::Part::Separator(text) => (text, PartKind::Separator),
            yaml::Part::Document(text) => (text, PartKind::Documents { on_separator }),
        };
        parts.push(Part { text, line, kind });
        line += lines(text);
        on_separator = kind == PartKind::Separator && text == "---";
    }
    parts
}

impl<'a> Part<'a> {
    /// Cuts the part into pieces.
    pub fn read(&self) -> Result<Vec<Piece<'a>>, Unreadable> {
        let Self { text, line, kind } = *self;
        let PartKind::Documents { on_separator } = kind else {
            return Ok(vec![Piece::Verbatim(text)]);
        };
        if text.trim_start().starts_with('{')
            && let Some(documents) = json::read(text, line)?
        {
            return Ok(documents);
        }
        if yaml::is_blank(text) {
            return Ok(vec![Piece::Verbatim(text)]);
        }
        Ok(vec![Piece::Document(Document {
            text,
            line,
            value: yaml::value(text).map_err(|error| error.below(line, on_separator))?,
            format: Format::Yaml,
            on_separator,
        })])
    }
}

/// A problem without the position at its end, which is not that in the stream.
fn without_position(problem: &str) -> String {
    let end = problem.rfind(" at line ").unwrap_or(problem.len());
    problem[..end].to_owned()
}

fn lines(text: &str) -> usize {
    text.matches('\n').count()
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
