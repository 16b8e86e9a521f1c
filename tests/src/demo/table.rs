//! The table of results.

use comfy_table::{Table, presets};
use interceptor_testkit::sidecar::SceneClient;

use crate::{
    pod::Compared,
    result::ConnectionResult,
    rows::{LEGEND, Row},
};

const HEADER: [&str; 8] = [
    "client",
    "dials",
    "proxy gets",
    "from",
    "response from",
    "which gets",
    "behind iptables",
    "equal",
];

const EQUAL: &str = "yes";
const DIFFERENT: &str = "NO";

const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[1;31m";
const PLAIN: &str = "\u{1b}[0m";

/// Draws the table, and the differences below it.
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
    let (report, reported_client) = report(row, ours);
    let (response, client_view) = match &ours.response {
        Ok((server, client)) => (server.clone(), client.to_string()),
        Err(why) => (why.clone(), String::new()),
    };
    let equal = if compared.is_equal() {
        EQUAL
    } else {
        DIFFERENT
    };
    [
        name(row.client).to_owned(),
        row.to.to_owned(),
        report,
        reported_client,
        response,
        client_view,
        in_short(theirs),
        equal.to_owned(),
    ]
}

const fn name(client: SceneClient) -> &'static str {
    match client {
        SceneClient::App => "app",
        SceneClient::Root => "root",
        SceneClient::Proxy => "proxy",
        SceneClient::Client => "client",
    }
}

/// The proxy's port with the original destination, and the client's address.
fn report(row: &Row, result: &ConnectionResult) -> (String, String) {
    match &result.report {
        Some(report) => (
            format!("{}: {}", report.listener, report.original),
            report.client.clone(),
        ),
        None if row.proxy_is_up => (String::new(), String::new()),
        None => ("(down)".to_owned(), String::new()),
    }
}

/// The path of the connection.
fn in_short(result: &ConnectionResult) -> String {
    let end = match &result.response {
        Ok((server, _)) => server,
        Err(why) => why,
    };
    match &result.report {
        Some(report) => format!("{} → {end}", report.listener),
        None => end.clone(),
    }
}

fn differences(compared: &[Compared]) -> Vec<String> {
    compared
        .iter()
        .filter(|compared| !compared.is_equal())
        .map(|Compared { row, ours, theirs }| {
            let difference = ours.difference(theirs);
            format!("\n{} to {}: {difference}", name(row.client), row.to)
        })
        .collect()
}

/// Colours do not count as width, so they are added after the drawing.
fn colored(table: &str) -> String {
    let color = |word: &str, color: &str, table: &str| {
        let length = HEADER[7].len();
        let cell = format!(" {word:<length$} │");
        table.replace(&cell, &format!(" {color}{word:<length$}{PLAIN} │"))
    };
    color(DIFFERENT, RED, &color(EQUAL, GREEN, table))
}
