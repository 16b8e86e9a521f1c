//! The tables in `SECURITY.md`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{case::Who, defence::Defence};

/// A row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) who: Who,
    pub(crate) outcomes: Vec<String>,
}

/// Groups are written by tests that run at the same time.
static FILE: Mutex<()> = Mutex::new(());

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../SECURITY.md")
}

/// Compares a group's table with the one in `SECURITY.md`, or writes it.
///
/// # Panics
///
/// If they differ.
pub(crate) fn compare(title: &str, rows: &[Row]) {
    let _lock = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let page = fs::read_to_string(file()).expect("SECURITY.md");
    let start = format!("<!-- measured: {title} -->\n");
    let marked = page.split_once(&start).and_then(|(before, rest)| {
        let (table, after) = rest.split_once("<!-- end -->")?;
        Some((before, table, after))
    });
    let (before, table, after) =
        marked.unwrap_or_else(|| panic!("SECURITY.md has no lines {start:?} and <!-- end -->"));
    let measured = text(rows);
    if env::var_os("SNAPSHOTS").is_some_and(|action| action == "overwrite") {
        let page = format!("{before}{start}{measured}<!-- end -->{after}");
        fs::write(file(), page).expect("SECURITY.md");
        return;
    }
    assert_eq!(
        table, measured,
        "SECURITY.md, {title}: run with SNAPSHOTS=overwrite, and review the difference"
    );
}

fn text(rows: &[Row]) -> String {
    let columns: Vec<_> = Defence::ALL.iter().map(Defence::to_string).collect();
    let head = format!("| case | who | {} |\n", columns.join(" | "));
    let line = format!("|---|---|{}\n", "---|".repeat(columns.len()));
    let row = |row: &Row| {
        let outcomes = row.outcomes.join(" | ");
        format!("| {} | {} | {outcomes} |\n", row.name, row.who)
    };
    let rows: String = rows.iter().map(row).collect();
    head + &line + &rows
}
