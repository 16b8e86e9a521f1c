//! Where each node of a YAML document is in its text.

use std::ops::Range;

use granit_parser::{Event, Parser, Span, StrInput, StructureStyle};

/// A node and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// The bytes of the node. A collection in block style ends with its last scalar.
    pub(super) range: Range<usize>,
    /// Whether it is a collection in block style.
    pub(super) block: bool,
}

#[derive(Debug)]
pub(super) enum Kind {
    Scalar,
    Mapping(Vec<Entry>),
    Sequence(Vec<Node>),
}

/// An entry of a mapping.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The bytes from the key to the end of the value.
    pub(super) range: Range<usize>,
    pub(super) value: Node,
}

/// The nodes of a document; nothing if it has anchors, tags, keys that are not scalars, or errors.
pub(super) fn parse(text: &str) -> Option<Node> {
    let mut builder = Builder {
        text,
        parser: Parser::new_from_str(text),
    };
    loop {
        if let (Event::DocumentStart(..), _) = builder.next()? {
            return builder.node();
        }
    }
}

struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        loop {
            let event = self.parser.next_event()?.ok()?;
            if !matches!(event.0, Event::Comment(..)) {
                return Some(event);
            }
        }
    }

    fn node(&mut self) -> Option<Node> {
        let (event, span) = self.next()?;
        self.node_of(&event, span.byte_range()?)
    }

    fn node_of(&mut self, event: &Event<'a>, range: Range<usize>) -> Option<Node> {
        match event {
            Event::Scalar(_, _, 0, None) => Some(Node {
                kind: Kind::Scalar,
                range,
                block: false,
            }),
            Event::SequenceStart(style, 0, None) => self.sequence(*style, range),
            Event::MappingStart(style, 0, None) => self.mapping(*style, range),
            _ => None,
        }
    }

    fn sequence(&mut self, style: StructureStyle, range: Range<usize>) -> Option<Node> {
        let mut items: Vec<Node> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let place = span.byte_range()?;
            if matches!(event, Event::SequenceEnd) {
                let last = items.last().map(|item| item.range.end);
                return Some(collection(Kind::Sequence(items), style, range, place, last));
            }
            items.push(self.node_of(&event, place)?);
        }
    }

    fn mapping(&mut self, style: StructureStyle, range: Range<usize>) -> Option<Node> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let place = span.byte_range()?;
            match event {
                Event::MappingEnd => {
                    let last = entries.last().map(|entry| entry.range.end);
                    return Some(collection(
                        Kind::Mapping(entries),
                        style,
                        range,
                        place,
                        last,
                    ));
                }
                Event::Scalar(key, _, 0, None) => {
                    let value = self.node()?;
                    entries.push(Entry {
                        key: key.into_owned(),
                        range: place.start..self.end_of_entry(&place, &value)?,
                        value,
                    });
                }
                _ => return None,
            }
        }
    }

    /// The parser puts a value that is not there where the next token begins.
    fn end_of_entry(&self, key: &Range<usize>, value: &Node) -> Option<usize> {
        if value.range.is_empty() {
            return Some(key.end + self.text.get(key.end..)?.find(':')? + 1);
        }
        // A block scalar ends with the line breaks that follow it.
        Some(self.text.get(..value.range.end)?.trim_end().len())
    }
}

fn collection(
    kind: Kind,
    style: StructureStyle,
    start: Range<usize>,
    end: Range<usize>,
    last: Option<usize>,
) -> Node {
    let block = style == StructureStyle::Block;
    let end = last.filter(|_| block).unwrap_or(end.end);
    Node {
        kind,
        range: start.start..end,
        block,
    }
}

impl Node {
    /// The first byte of the node at `path`, or of its nearest parent. An entry begins with its key.
    pub(super) fn offset_of(&self, path: &[String]) -> usize {
        self.find(path).unwrap_or(self.range.start)
    }

    fn find(&self, path: &[String]) -> Option<usize> {
        let (first, rest) = path.split_first()?;
        match &self.kind {
            Kind::Mapping(entries) => {
                let entry = entries.iter().find(|entry| entry.key == *first)?;
                Some(entry.value.find(rest).unwrap_or(entry.range.start))
            }
            Kind::Sequence(items) => {
                let item = items.get(first.parse::<usize>().ok()?)?;
                Some(item.offset_of(rest))
            }
            Kind::Scalar => None,
        }
    }
}
