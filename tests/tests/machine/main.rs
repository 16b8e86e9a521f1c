//! Properties of the whole machine: each of these tests has it to itself.

mod agents;
mod counts;
mod dispatchers;
mod faults;
mod first;
mod full_tables;
mod last;
mod leaving;
mod observe;
mod observers;
mod outputs;
mod page;
mod programs;
mod shares;
mod swept;
mod uninstalling;
mod upgrade;

use std::{
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use interceptor_testkit::{
    command::{bounded, run},
    lab::wait_until,
    machine::{self, Exclusive},
};
use serde_json::Value;

/// Objects from before the test: no pin refers to them, so no command can remove them.
static BEFORE: Mutex<Vec<Object>> = Mutex::new(Vec::new());

/// The machine lock, also against the other tests of this process.
fn alone() -> Exclusive {
    let exclusive = machine::exclusive().expect("the machine");
    *before() = objects(&["link", "prog", "map"]).expect("objects");
    exclusive
}

fn before() -> MutexGuard<'static, Vec<Object>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of our objects in the kernel.
#[derive(Debug, PartialEq)]
struct Object {
    kind: String,
    id: u64,
    name: String,
}

fn objects(kinds: &[&str]) -> Result<Vec<Object>> {
    let mut found = Vec::new();
    for &kind in kinds {
        let text = run(bounded("bpftool").args(["--json", kind, "show"]), "")?;
        let objects: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        for object in objects.as_array().into_iter().flatten() {
            let (id, name) = (object["id"].as_u64(), object["name"].as_str());
            found.extend(id.zip(name).map(|(id, name)| Object {
                kind: kind.to_owned(),
                id,
                name: name.to_owned(),
            }));
        }
    }
    found.retain(|object| object.name.starts_with("icept_"));
    Ok(found)
}

/// Nothing is left. (The kernel frees programs and maps a little later.)
///
/// Maps are listed only when nothing can refer to them any more, and seldom: each listing opens and
/// closes every map of the machine, and a prog array that is closed for the last time again before
/// the work of the first time has been done is never freed (`prog_array_map_clear` takes a
/// reference for each time, and queues one work for both; Linux 6.18).
#[track_caller]
fn expect_nothing_left() {
    assert!(!std::path::Path::new("/sys/fs/bpf/interceptor").exists());
    let left = |kinds: &[&str]| -> Result<Vec<Object>> {
        let mut left = objects(kinds)?;
        left.retain(|object| !before().contains(object));
        Ok(left)
    };
    for kinds in [&["link", "prog"][..], &["map"]] {
        wait_until("the deletion of programs and maps", || {
            thread::sleep(Duration::from_millis(300));
            Ok(left(kinds)?.is_empty())
        })
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", left(kinds)));
    }
}

fn interceptor(arguments: &[&str]) -> Command {
    let mut command = bounded(interceptor_testkit::interceptor::binary());
    command.args(arguments);
    command
}
