//! The table.

use comfy_table::{Table, presets};
use interceptor_testkit::sidecar::Who;

use crate::{
    outcome::Outcome,
    pod::Compared,
    rows::{LEGEND, Row},
};

const HEADER: [&str; 8] = [
    "who",
    "dials",
    "proxy is told",
    "client",
    "who answers",
    "and sees",
    "behind iptables",
    "equal",
];

const EQUAL: &str = "yes";
const DIFFERENT: &str = "NO";

const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[1;31m";
const PLAIN: &str = "\u{1b}[0m";

/// Draws the table, and below it what differs.
pub(crate) fn draw(compared: &[Compared], is_colored: bool) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(HEADER);
    for row in compared {
        table.add_row(cells(row));
    }
    let mut text = table.to_string();
    if is_colored {
        text = colored(&text);
    }
    format!("{LEGEND}\n{text}{}", differences(compared).concat())
}

fn cells(compared: &Compared) -> [String; 8] {
    let Compared { row, ours, theirs } = compared;
    let (told, told_client) = told(row, ours);
    let (answer, answer_client) = match &ours.answer {
        Ok((who, client)) => (who.clone(), client.to_string()),
        Err(why) => (why.clone(), String::new()),
    };
    let equal = if compared.is_equal() {
        EQUAL
    } else {
        DIFFERENT
    };
    [
        name(row.who).to_owned(),
        row.to.to_owned(),
        told,
        told_client,
        answer,
        answer_client,
        in_short(theirs),
        equal.to_owned(),
    ]
}

const fn name(who: Who) -> &'static str {
    match who {
        Who::App => "app",
        Who::Root => "root",
        Who::Proxy => "proxy",
        Who::Client => "client",
    }
}

/// The proxy's port with the original destination, and the client.
fn told(row: &Row, outcome: &Outcome) -> (String, String) {
    match &outcome.told {
        Some(told) => (
            format!("{}: {}", told.listener, told.original),
            told.client.clone(),
        ),
        None if row.proxy_is_up => (String::new(), String::new()),
        None => ("(down)".to_owned(), String::new()),
    }
}

/// The way that the connection takes.
fn in_short(outcome: &Outcome) -> String {
    let end = match &outcome.answer {
        Ok((who, _)) => who,
        Err(why) => why,
    };
    match &outcome.told {
        Some(told) => format!("{} → {end}", told.listener),
        None => end.clone(),
    }
}

fn differences(compared: &[Compared]) -> Vec<String> {
    compared
        .iter()
        .filter(|compared| !compared.is_equal())
        .map(|Compared { row, ours, theirs }| {
            let difference = ours.difference(theirs);
            format!("\n{} to {}: {difference}", name(row.who), row.to)
        })
        .collect()
}

/// Colours do not count as width, so they come after the drawing.
fn colored(table: &str) -> String {
    let color = |word: &str, color: &str, table: &str| {
        let length = HEADER[7].len();
        let cell = format!(" {word:<length$} │");
        table.replace(&cell, &format!(" {color}{word:<length$}{PLAIN} │"))
    };
    color(DIFFERENT, RED, &color(EQUAL, GREEN, table))
}
