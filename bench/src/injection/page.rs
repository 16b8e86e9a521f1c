//! The results as a page of the docs, and on a terminal.

use comfy_table::{Table, presets};

use super::Results;
use crate::{markdown, table, targets::Target};

const HEADER: [&str; 4] = ["what", "target", "measured", "verdict"];

/// The whole page.
pub(super) fn page(results: &Results) -> String {
    let sections: Vec<String> = results.sections.iter().map(markdown::section).collect();
    let rows: Vec<String> = results
        .targets
        .iter()
        .map(|target| format!("| {} |\n", cells(target).join(" | ")))
        .collect();
    format!(
        "# What injection costs\n\n{}{}\n## Targets\n\n| {} |\n|---|---|---|---|\n{}\n{}",
        introduction(results),
        markdown::environment(&results.environment),
        HEADER.join(" | "),
        rows.concat(),
        sections.concat()
    )
}

fn introduction(results: &Results) -> String {
    let warning = if results.is_quick {
        "**A quick run: shorter than the targets require.**\n\n"
    } else {
        ""
    };
    format!(
        "Written by `cargo xtask bench --injection`; [results.json](results.json) has the same \
         numbers. *Template* is a sidecar as istiod injects it; the template of this run is {}. \
         *Built-in* is the sidecar for clusters without istiod. The pods have what the API server \
         adds before it calls a webhook, such as the volume with the service account's token, under \
         a random name.\n\n{warning}",
        results.template
    )
}

/// The targets.
pub(super) fn table(targets: &[Target]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(HEADER);
    for target in targets {
        table.add_row(cells(target));
    }
    table.to_string()
}

/// Without the column of iptables.
fn cells(target: &Target) -> [String; 4] {
    let [what, wanted, measured, _, verdict] = table::cells(target);
    [what, wanted, measured, verdict]
}
