//! Output formats of commands.

use std::io;

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;
use terminal_size::terminal_size_of;

/// The width that text fits where no terminal says another.
pub(super) const WIDTH: u16 = 100;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Text for people.
    #[default]
    Text,
    /// One JSON document for programs.
    Json,
    /// The same document as YAML.
    Yaml,
}

impl Format {
    /// `value` in this format, which is `text` for people.
    pub(super) fn render<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> Result<String>,
    ) -> Result<String> {
        match self {
            Self::Text => text(value),
            Self::Json => json(value),
            Self::Yaml => yaml(value),
        }
    }
}

pub(super) fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

pub(super) fn yaml(value: &impl Serialize) -> Result<String> {
    // By way of the document of JSON, so that both have the same.
    let value = serde_json::to_value(value)?;
    let text = serde_saphyr::to_string(&value)?;
    Ok(text.trim_end().to_owned() + "\n")
}

/// A table without lines, as wide as the terminal; in a pipe as wide as its content.
pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = plain_table();
    table.set_header(header);
    if let Some(width) = terminal_width() {
        wrap(&mut table, width);
    }
    table
}

/// A table without lines and without a header.
pub(super) fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table
}

/// A table as text.
pub(super) fn lines(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// Wraps the content so that the table is at most this wide.
pub(super) fn wrap(table: &mut Table, width: u16) {
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width);
}

/// The width of the terminal, if standard output is one.
pub(super) fn terminal_width() -> Option<u16> {
    terminal_size_of(io::stdout()).map(|(width, _)| width.0)
}
