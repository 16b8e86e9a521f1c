//! What can only be told of the whole machine: each of these tests has it for itself.

mod dispatchers;
mod first;
mod full_tables;
mod last;
mod swept;
mod upgrade;

use std::process::Command;

use anyhow::{Context as _, Result};
use interceptor_tests::{
    command::{bounded, run},
    lab::wait_until,
    machine::{self, Exclusive},
};
use serde_json::Value;

/// The machine, also against the other tests of this process.
fn alone() -> Exclusive {
    machine::exclusive().expect("the machine")
}

/// The programs and maps of ours that the kernel has.
fn objects() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for kind in ["prog", "map", "link"] {
        let text = run(bounded("bpftool").args(["--json", kind, "show"]), "")?;
        let objects: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let names = objects.as_array().into_iter().flatten();
        let names = names.filter_map(|object| object["name"].as_str());
        let ours = names.filter(|name| name.starts_with("icept_"));
        found.extend(ours.map(|name| format!("{kind} {name}")));
    }
    Ok(found)
}

/// Nothing at all is left. (The kernel frees programs and maps a little later.)
#[track_caller]
fn expect_nothing_left() {
    assert!(!std::path::Path::new("/sys/fs/bpf/interceptor").exists());
    let gone = wait_until("the end of programs and maps", || Ok(objects()?.is_empty()));
    gone.unwrap_or_else(|error| panic!("{error:#}: {:?}", objects()));
}

fn interceptor(arguments: &[&str]) -> Command {
    let mut command = bounded(interceptor_tests::interceptor::binary());
    command.args(arguments);
    command
}
