//! The results as a page of the docs.

use super::{Environment, Results, Row, Section, table};

/// The whole page.
pub(super) fn page(results: &Results) -> String {
    let sections: Vec<String> = results.sections.iter().map(section).collect();
    format!(
        "# What interception costs\n\n{}{}\n{}\n{}",
        introduction(results),
        environment(&results.environment),
        targets(results),
        sections.concat()
    )
}

fn introduction(results: &Results) -> String {
    let warning = if results.is_quick {
        "**A quick run: too short to be precise to the percent.**\n\n"
    } else {
        ""
    };
    format!(
        "Written by `cargo xtask bench`; [results.json](results.json) has the same numbers. Three \
         identical pods: *direct*, without interception, where the app dials the proxy's port \
         itself, which is the limit; *iptables-nft*, with Istio's rules in the kernel's own \
         iptables; *interceptor*. They take turns in short rounds, in another order each time. A \
         ratio compares numbers of the same round; reported are the median of the rounds and, in \
         parentheses, the quartiles. Before the run, every pod's proxy is verified to get the \
         connections with their original destination, and conntrack to track them behind iptables \
         and nowhere else.\n\n{warning}"
    )
}

/// The machine, as a list.
pub(super) fn environment(environment: &Environment) -> String {
    let mut lines = vec![
        format!(
            "- {} × {}, {}",
            environment.processors, environment.processor, environment.memory
        ),
        format!("- {}", environment.kernel),
        format!("- load at the start: {}", environment.load),
    ];
    lines.extend(
        environment
            .mitigations
            .iter()
            .map(|line| format!("- {line}")),
    );
    lines.extend(environment.versions.iter().map(|line| format!("- {line}")));
    lines.join("\n") + "\n"
}

fn targets(results: &Results) -> String {
    let rows: Vec<String> = results
        .targets
        .iter()
        .map(|target| format!("| {} |\n", table::cells(target).join(" | ")))
        .collect();
    format!(
        "## Targets\n\n| what | target | interceptor | iptables-nft | verdict |\n\
         |---|---|---|---|---|\n{}",
        rows.concat()
    )
}

/// A section with its table.
pub(super) fn section(section: &Section) -> String {
    let charts: Vec<String> = section
        .charts
        .iter()
        .map(|chart| format!("![{}]({}.svg)\n\n", chart.title, chart.name))
        .collect();
    let notes: Vec<String> = section
        .notes
        .iter()
        .map(|note| format!("- {note}\n"))
        .collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!(
        "## {}\n\n{}\n\n{}{}{gap}{}\n",
        section.title,
        section.method,
        charts.concat(),
        rows(&section.rows),
        notes.concat()
    )
}

/// A table with a column for each name that has a number in any row.
fn rows(rows: &[Row]) -> String {
    let mut columns: Vec<&str> = Vec::new();
    for value in rows.iter().flat_map(|row| &row.values) {
        if !columns.contains(&value.of.as_str()) {
            columns.push(&value.of);
        }
    }
    let lines: Vec<String> = rows.iter().map(|row| line(row, &columns)).collect();
    let header = ["what"].iter().chain(&columns).chain(&["ratios"]);
    let header: Vec<&str> = header.copied().collect();
    format!(
        "| {} |\n|{}\n{}",
        header.join(" | "),
        "---|".repeat(header.len()),
        lines.concat()
    )
}

fn line(row: &Row, columns: &[&str]) -> String {
    let values = columns.iter().map(|column| {
        row.value(column).map_or_else(String::new, |summary| {
            table::spread(&summary, Some(row.unit))
        })
    });
    let ratios: Vec<String> = row
        .ratios
        .iter()
        .map(|ratio| {
            let spread = table::spread(&ratio.summary, None);
            format!("{} / {}: {spread}", ratio.of, ratio.to)
        })
        .collect();
    let cells: Vec<String> = [row.what.clone()]
        .into_iter()
        .chain(values)
        .chain([ratios.join("<br>")])
        .collect();
    format!("| {} |\n", cells.join(" | "))
}
