//! The kernel's log.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

use anyhow::{Context as _, Result};
use nix::{errno::Errno, libc::O_NONBLOCK};

/// Each read returns one record.
const LOG: &str = "/dev/kmsg";

/// More than the kernel's buffer holds.
const MAX_RECORDS: usize = 1 << 17;
const MAX_RECORD: usize = 8 << 10;

const WORDS: [&str; 3] = ["bpf", "icept_", "interceptor"];

/// The lines that mention BPF.
pub(super) fn about_bpf() -> Result<String> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_NONBLOCK);
    let mut log = options.open(LOG).context("cannot open /dev/kmsg")?;
    let mut text = String::new();
    let mut buffer = vec![0; MAX_RECORD];
    for _ in 0..MAX_RECORDS {
        match log.read(&mut buffer) {
            Ok(length) => text += &line(&String::from_utf8_lossy(&buffer[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // The kernel has overwritten the record: the next read returns a later one.
            Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
            Err(error) => return Err(error).context("cannot read /dev/kmsg"),
        }
    }
    Ok(text)
}

/// A record as in `dmesg`, if it mentions BPF; otherwise nothing.
fn line(record: &str) -> String {
    let (fields, rest) = record.split_once(';').unwrap_or(("", record));
    let message = rest.lines().next().unwrap_or_default();
    let words = message.to_lowercase();
    if !WORDS.iter().any(|word| words.contains(word)) {
        return String::new();
    }
    let microseconds = fields.split(',').nth(2).and_then(|time| time.parse().ok());
    let time: u64 = microseconds.unwrap_or(0);
    format!("[{}.{:06}] {message}\n", time / 1_000_000, time % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_about_bpf_become_lines() {
        let record = "4,1120,5140900,-;BPF: type_id=7\n SUBSYSTEM=x\n";
        assert_eq!(line(record), "[5.140900] BPF: type_id=7\n");
        assert_eq!(line("6,1,2,-;usb 1-1: new device\n"), "");
    }
}
