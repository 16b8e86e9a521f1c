//! What is attached on this machine.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::json;
use crate::{
    bpf::{link, pins, pins::Pins, program_statistics, usage},
    host, status,
};

/// More levels than pins have.
const MAX_DEPTH: usize = 6;

pub(super) fn pods() -> Result<String> {
    json(&status::read(None)?)
}

pub(super) fn pins() -> Result<String> {
    let mut lines = Vec::new();
    list(
        &Path::new(host::BPFFS).join("interceptor"),
        MAX_DEPTH,
        &mut lines,
    )?;
    lines.sort();
    Ok(lines.concat())
}

fn list(dir: &Path, depth: usize, lines: &mut Vec<String>) -> Result<()> {
    for name in pins::names_in(dir)? {
        let path = dir.join(name);
        lines.push(format!("{}\n", path.display()));
        if path.is_dir() && depth > 0 {
            list(&path, depth - 1, lines)?;
        }
    }
    Ok(())
}

pub(super) fn maps() -> Result<String> {
    json(&usage::read()?)
}

pub(super) fn programs() -> Result<String> {
    json(&program_statistics::read(&Pins::new())?)
}

pub(super) fn links() -> Result<String> {
    let links = program_statistics::links(&Pins::new())?;
    let links = links.iter().map(|pin| link::status(pin));
    let links: Vec<_> = links.collect::<Result<_>>().context("cannot read a link")?;
    json(&links)
}
