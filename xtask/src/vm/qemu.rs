//! Boots a kernel in an emulator and reads its console.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::initramfs::RESULT;
use crate::command::{display, say};

/// The time limit of a virtual machine, in seconds. Without hardware support it is slow.
const TIME_LIMIT: &str = "300";

/// The result of the guest's command.
pub(super) struct Outcome {
    pub(super) exit_code: i32,
    /// The output on the console.
    pub(super) output: String,
}

/// Boots, and returns when the guest has powered off. The console is copied to standard error and to a
/// file beside the initramfs.
pub(super) fn run(name: &str, kernel: &Path, initramfs: &Path) -> Result<Outcome> {
    let mut qemu = command(kernel, initramfs);
    let log = initramfs.with_file_name("console.log");
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
            "kernel {name}: no result (the limit is {TIME_LIMIT} s); `{}`: {status}",
            display(&qemu)
        )
    })?;
    Ok(Outcome { exit_code, output })
}

/// The emulator, which `timeout` terminates even if this process is killed.
fn command(kernel: &Path, initramfs: &Path) -> Command {
    let mut command = Command::new("timeout");
    command
        .args([
            "--foreground",
            "--kill-after=5",
            TIME_LIMIT,
            "qemu-system-x86_64",
        ])
        .args([
            "-accel",
            "tcg",
            // QEMU 7.2 emulates cmpxchg16b wrongly, so one in three boots of 6.12 crashes.
            "-cpu",
            "max,cx16=off",
            // Not two processors: the kernel rewrites code that another processor may be executing,
            // and with both emulated, a boot crashed on a partial write ("Oops: int3").
            "-smp",
            "1",
            "-m",
            "1024",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        .args([
            "-serial",
            "stdio",
            "-append",
            "console=ttyS0 panic=-1 quiet",
            "-kernel",
        ])
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs);
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
