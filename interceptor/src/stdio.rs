//! Standard output and standard error, which every command writes to by way of this module.
//!
//! `println!` and `eprintln!` panic where it cannot be written, as when the reader of a pipe has
//! gone (`interceptor status | head -1`). With SIGPIPE's default action instead, a message would
//! end an attach that is half done, and the agent.

use std::{
    fmt,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};

/// Writes `text` to standard output. A reader that has closed its pipe has what it wanted.
pub(crate) fn print(text: &str) -> Result<()> {
    match write(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context(CANNOT_WRITE),
    }
}

/// Writes `text` to standard output, for a reader that has to have it: a closed pipe is an error.
pub(crate) fn answer(text: &str) -> Result<()> {
    write(text).context(CANNOT_WRITE)
}

const CANNOT_WRITE: &str = "cannot write to standard output";

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a line to standard error. One that cannot be written stops nothing.
pub(crate) fn write_message(line: fmt::Arguments<'_>) {
    // In one call: other processes write to the same pipe.
    let _unwritten = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// `eprintln!` for every message of this crate: see [`crate::stdio`].
macro_rules! message {
    ($($text:tt)*) => {
        $crate::stdio::write_message(format_args!($($text)*))
    };
}
pub(crate) use message;
