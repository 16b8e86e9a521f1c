//! Boots a kernel in an emulator and reads its console.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{initramfs::RESULT, outcome::Outcome};
use crate::{
    architecture::Architecture,
    command::{display, say},
};

/// A virtual machine.
pub(super) struct Machine<'a> {
    pub(super) name: &'static str,
    pub(super) architecture: Architecture,
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// More parameters of the kernel.
    pub(super) parameters: &'static str,
    /// Without hardware support it is slow.
    pub(super) time_limit: Duration,
}

/// Boots, and returns when the guest has powered off. The console is copied to standard error and to a
/// file beside the initramfs.
pub(super) fn run(machine: &Machine<'_>) -> Result<Outcome> {
    let Machine {
        name, time_limit, ..
    } = machine;
    let mut qemu = command(machine);
    let log = machine.initramfs.with_file_name("console.log");
    say(&format!(
        "kernel {name}: booting; console in {}",
        log.display()
    ));
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", display(&qemu)))?;
    let console = child.stdout.take().context("the console is not piped")?;
    let output = listen(name, console, File::create(&log)?);
    let status = child.wait()?;
    let output = output?;
    let exit_code = result(&output).with_context(|| {
        format!(
            "kernel {name}: no result (the limit is {time_limit:?}); `{}`: {status}",
            display(&qemu)
        )
    })?;
    Ok(Outcome { exit_code, output })
}

/// The emulator's program for an architecture.
pub(super) fn program(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "qemu-system-x86_64",
        Architecture::Aarch64 => "qemu-system-aarch64",
    }
}

/// The emulated machine and processor.
fn hardware(architecture: Architecture) -> &'static [&'static str] {
    match architecture {
        // QEMU 7.2 emulates cmpxchg16b wrongly, so one in three boots of 6.12 crashes.
        Architecture::X86_64 => &["-cpu", "max,cx16=off"],
        // A processor of servers; `max` has features that are slow to emulate.
        Architecture::Aarch64 => &["-machine", "virt", "-cpu", "neoverse-n1"],
    }
}

/// The console's device in the guest.
fn console(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "ttyS0",
        Architecture::Aarch64 => "ttyAMA0",
    }
}

/// The emulator, which `timeout` terminates even if this process is killed.
fn command(machine: &Machine<'_>) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "--kill-after=5"])
        .arg(machine.time_limit.as_secs().to_string())
        .args([program(machine.architecture), "-accel", "tcg"])
        .args(hardware(machine.architecture))
        .args([
            // Not two processors: the kernel rewrites code that another processor may be executing,
            // and with both emulated, a boot crashed on a partial write ("Oops: int3").
            "-smp",
            "1",
            // The guest's clock counts its instructions, and skips the time in which it waits: time limits
            // in the guest do not depend on the host's load.
            "-icount",
            "shift=0,sleep=off",
            "-m",
            "2048",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        .args(["-serial", "stdio", "-append"])
        .arg(format!(
            "console={} panic=-1 quiet {}",
            console(machine.architecture),
            machine.parameters
        ))
        .arg("-kernel")
        .arg(machine.kernel)
        .arg("-initrd")
        .arg(machine.initramfs);
    command
}

fn listen(name: &str, console: impl Read, mut log: File) -> Result<String> {
    let mut output = String::new();
    for line in BufReader::new(console).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        eprintln!("{name} | {line}");
        writeln!(log, "{line}")?;
        output += line;
        output.push('\n');
    }
    Ok(output)
}

fn result(output: &str) -> Option<i32> {
    let line = output
        .lines()
        .rev()
        .find_map(|line| line.split_once(RESULT))?;
    line.1.parse().ok()
}
