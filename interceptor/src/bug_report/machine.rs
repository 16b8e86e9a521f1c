//! The machine and its releases.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use nix::sys::utsname::uname;
use serde::Serialize;

use super::json;
use crate::{bpf::embedded, check};

/// The host's, also for a report from a container.
const OS_RELEASE: [&str; 2] = ["/proc/1/root/etc/os-release", "/etc/os-release"];

/// The fields of the file that have a name or a version.
const OS_FIELDS: [&str; 3] = ["ID", "VERSION_ID", "PRETTY_NAME"];

/// Files with settings of the kernel that concern BPF.
const SETTINGS: [&str; 5] = [
    "/proc/sys/kernel/bpf_stats_enabled",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
    "/proc/sys/net/core/bpf_jit_enable",
    "/proc/sys/net/core/bpf_jit_harden",
    "/sys/kernel/security/lockdown",
];

#[derive(Serialize)]
struct Versions {
    interceptor: &'static str,
    /// Identifies the BPF programs.
    build: &'static str,
    kernel: String,
    kernel_version: String,
    architecture: String,
    system: BTreeMap<String, String>,
    settings: BTreeMap<&'static str, String>,
}

pub(super) fn versions() -> Result<String> {
    let kernel = uname().context("cannot read the kernel's release")?;
    json(&Versions {
        interceptor: env!("CARGO_PKG_VERSION"),
        build: embedded::build_id(),
        kernel: kernel.release().to_string_lossy().into_owned(),
        kernel_version: kernel.version().to_string_lossy().into_owned(),
        architecture: kernel.machine().to_string_lossy().into_owned(),
        system: system(),
        settings: settings(),
    })
}

fn system() -> BTreeMap<String, String> {
    let text = OS_RELEASE
        .iter()
        .find_map(|path| fs::read_to_string(path).ok());
    let text = text.unwrap_or_default();
    let fields = text.lines().filter_map(|line| line.split_once('='));
    fields
        .filter(|(name, _)| OS_FIELDS.contains(name))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

/// Without those that this kernel does not have.
fn settings() -> BTreeMap<&'static str, String> {
    let read = |path| Some((path, fs::read_to_string(path).ok()?.trim().to_owned()));
    SETTINGS.into_iter().filter_map(read).collect()
}

pub(super) fn check() -> Result<String> {
    json(&check::run())
}

/// The host's name, with and without its domain.
pub(super) fn host_names() -> Vec<String> {
    let name = uname().map(|kernel| kernel.nodename().to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let short = name.split('.').next().unwrap_or_default().to_owned();
    vec![name, short]
}
