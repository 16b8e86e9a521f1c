//! The product's commands.

use std::{fs, process::Command};

use anyhow::{Result, ensure};

use super::namespace::Namespace;
use crate::settings::{Dns, Mode, Settings};

/// Attaches the pod, at the default cgroup.
pub(super) fn attach(pod: &Namespace) -> Result<()> {
    let settings = Settings {
        dns: Dns::All,
        ..Settings::default()
    };
    run(command("attach", pod).args(settings.flags()))
}

/// Attaches it in strict mode.
pub(super) fn attach_strictly(pod: &Namespace) -> Result<()> {
    let settings = Settings {
        dns: Dns::All,
        ..Settings::default()
    };
    let strict = ["--strict", "all"];
    run(command("attach", pod).args(settings.flags()).args(strict))
}

/// Attaches it with TPROXY.
pub(super) fn attach_transparently(pod: &Namespace) -> Result<()> {
    let settings = Settings {
        mode: Mode::Tproxy,
        ..Settings::default()
    };
    run(command("attach", pod).args(settings.flags()))
}

/// Detaches it.
pub(super) fn detach(pod: &Namespace) -> Result<()> {
    run(&mut command("detach", pod))
}

/// No other program pins anything on this machine.
pub(super) fn expect_nothing_pinned() -> Result<()> {
    let pins: Vec<_> = fs::read_dir("/sys/fs/bpf")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    ensure!(pins.is_empty(), "pins are left: {pins:?}");
    Ok(())
}

fn command(name: &str, pod: &Namespace) -> Command {
    let mut command = Command::new("interceptor");
    command.arg(name).arg("--netns").arg(pod.path());
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
