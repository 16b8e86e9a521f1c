//! Edits a YAML document in place: only the lines of what changes are written.
//!
//! The result is read again. If it is not the wanted value, the edit is dropped: a node whose text
//! has a form that this module does not know does no harm.

use std::{borrow::Cow, ops::Range};

use serde_json::{Map, Value};
use similar::{Algorithm, capture_diff_slices};

use super::{
    tree::{self, Entry, Kind, Node},
    yaml,
};

/// `text`, whose value is `old`, with the value `new`; nothing if that cannot be done in place.
pub(super) fn edited(text: &str, old: &Value, new: &Value) -> Option<String> {
    let tree = tree::parse(text)?;
    let mut editor = Editor {
        text,
        edits: Vec::new(),
    };
    editor.node(&tree, old, new)?;
    let edited = editor.apply();
    (yaml::value(&edited).ok()? == *new).then_some(edited)
}

struct Editor<'a> {
    text: &'a str,
    /// What replaces which bytes.
    edits: Vec<(Range<usize>, String)>,
}

impl Editor<'_> {
    fn apply(mut self) -> String {
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut output = String::with_capacity(self.text.len() * 2);
        let mut end = 0;
        for (range, replacement) in &self.edits {
            output += self.text.get(end..range.start).unwrap_or_default();
            output += replacement;
            end = range.end;
        }
        output += &self.text[end..];
        output
    }

    /// Edits a collection in block style; nothing if it must be replaced as a whole.
    fn node(&mut self, node: &Node, old: &Value, new: &Value) -> Option<()> {
        match (&node.kind, old, new) {
            (Kind::Mapping(entries), Value::Object(old), Value::Object(new))
                if node.block && entries.len() == old.len() && !new.is_empty() =>
            {
                self.mapping(entries, old, new)
            }
            (Kind::Sequence(items), Value::Array(old), Value::Array(new))
                if node.block && items.len() == old.len() && !new.is_empty() =>
            {
                self.sequence(items, old, new)
            }
            _ => None,
        }
    }

    fn mapping(
        &mut self,
        entries: &[Entry],
        old: &Map<String, Value>,
        new: &Map<String, Value>,
    ) -> Option<()> {
        for entry in entries {
            let before = old.get(&entry.key)?;
            match new.get(&entry.key) {
                None => self.remove(&entry.range, "")?,
                Some(after) if after == before => {}
                Some(after) => self.entry(entry, before, after),
            }
        }
        let added = new.iter().filter(|(key, _)| !old.contains_key(*key));
        let added: Map<_, _> = added.map(|(k, v)| (k.clone(), v.clone())).collect();
        if !added.is_empty() {
            let (first, last) = (entries.first()?, entries.last()?);
            let column = self.column(first.range.start);
            self.insert_after(&last.range, &added.into(), column);
        }
        Some(())
    }

    fn entry(&mut self, entry: &Entry, old: &Value, new: &Value) {
        let edits = self.edits.len();
        if self.node(&entry.value, old, new).is_none() {
            self.edits.truncate(edits);
            let object = Map::from_iter([(entry.key.clone(), new.clone())]);
            self.replace(&entry.range, &object.into());
        }
    }

    fn sequence(&mut self, items: &[Node], old: &[Value], new: &[Value]) -> Option<()> {
        let steps = capture_diff_slices(Algorithm::Myers, &identities(old), &identities(new));
        for step in steps {
            let (old_items, new_items) = (step.old_range(), step.new_range());
            // Items with equal names, or that replace each other and have none.
            if names(&old[old_items.clone()]).eq(names(&new[new_items.clone()])) {
                for (before, after) in old_items.zip(new_items) {
                    self.item(&items[before], &old[before], &new[after]);
                }
                continue;
            }
            for item in &items[old_items.clone()] {
                self.remove(&trimmed(self.text, &item.range), "-")?;
            }
            self.insert_items(items, old_items.end, &new[new_items])?;
        }
        Some(())
    }

    fn item(&mut self, item: &Node, old: &Value, new: &Value) {
        let edits = self.edits.len();
        if old != new && self.node(item, old, new).is_none() {
            self.edits.truncate(edits);
            self.replace(&trimmed(self.text, &item.range), new);
        }
    }

    /// Inserts before the item `index`, and the comments above it.
    fn insert_items(&mut self, items: &[Node], index: usize, new: &[Value]) -> Option<()> {
        if new.is_empty() {
            return Some(());
        }
        let first = self.line_start(items.first()?.range.start);
        let column = self.text[first..].find('-')?;
        let list = Value::Array(new.to_vec());
        let Some(next) = items.get(index) else {
            let preceding = trimmed(self.text, &items.last()?.range);
            self.insert_after(&preceding, &list, column);
            return Some(());
        };
        let mut start = self.line_start(next.range.start);
        while start > 0 && self.line_is_comment(self.line_start(start - 1)) {
            start = self.line_start(start - 1);
        }
        let text = self.lines(&list, column);
        self.edits.push((start..start, text));
        Some(())
    }

    /// Removes the lines of a node that has only `mark` before it.
    fn remove(&mut self, range: &Range<usize>, mark: &str) -> Option<()> {
        let start = self.line_start(range.start);
        if self.text[start..range.start].trim() != mark {
            return None;
        }
        self.edits
            .push((start..self.line_end(range.end), String::new()));
        Some(())
    }

    /// Replaces a node that may begin in the middle of its line.
    fn replace(&mut self, range: &Range<usize>, value: &Value) {
        let text = self.lines(value, self.column(range.start));
        self.edits.push((range.clone(), text.trim().to_owned()));
    }

    fn insert_after(&mut self, range: &Range<usize>, value: &Value, column: usize) {
        let end = self.line_end(range.end);
        let mut text = self.lines(value, column);
        if !self.text[..end].ends_with('\n') {
            text = format!("{}{}", self.line_break(), text.trim_end());
        }
        self.edits.push((end..end, text));
    }

    /// `value` as lines that begin in `column`.
    fn lines(&self, value: &Value, column: usize) -> String {
        let indent = " ".repeat(column);
        let rendered = yaml::render(value);
        let lines = rendered.lines().map(|line| {
            let indent = if line.is_empty() { "" } else { &*indent };
            format!("{indent}{line}{}", self.line_break())
        });
        lines.collect()
    }

    fn line_break(&self) -> &'static str {
        if self.text.contains("\r\n") {
            "\r\n"
        } else {
            "\n"
        }
    }

    fn line_start(&self, offset: usize) -> usize {
        self.text[..offset].rfind('\n').map_or(0, |at| at + 1)
    }

    fn line_end(&self, offset: usize) -> usize {
        let rest = &self.text[offset..];
        rest.find('\n')
            .map_or(self.text.len(), |at| offset + at + 1)
    }

    fn column(&self, offset: usize) -> usize {
        self.text[self.line_start(offset)..offset].chars().count()
    }

    fn line_is_comment(&self, start: usize) -> bool {
        self.text[start..]
            .trim_start_matches([' ', '\t'])
            .starts_with('#')
    }
}

/// A block scalar ends with the line breaks that follow it.
fn trimmed(text: &str, range: &Range<usize>) -> Range<usize> {
    range.start..text[..range.end].trim_end().len().max(range.start)
}

fn names(list: &[Value]) -> impl Iterator<Item = Option<&str>> {
    list.iter().map(|item| item["name"].as_str())
}

/// What distinguishes each item of a list: its name, or all of it.
fn identities(list: &[Value]) -> Vec<Cow<'_, str>> {
    list.iter()
        .map(|item| match item["name"].as_str() {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(item.to_string()),
        })
        .collect()
}
