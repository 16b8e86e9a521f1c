//! Writes to standard output and standard error for every command.
//!
//! `println!` and `eprintln!` panic if they cannot write, for example to a closed pipe (`interceptor
//! status | head -1`). With SIGPIPE's default action, a message would kill an unfinished attach, and
//! the agent.

use std::{
    fmt,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};

/// Writes `text` to standard output. A closed pipe is not an error.
pub(crate) fn print(text: &str) -> Result<()> {
    match write(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context(CANNOT_WRITE),
    }
}

/// Writes `text` to standard output for a program that requires it: a closed pipe is an error.
pub(crate) fn print_required(text: &str) -> Result<()> {
    write(text).context(CANNOT_WRITE)
}

/// Whether an error of [`print_required`] means that the reader has closed its pipe.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

const CANNOT_WRITE: &str = "cannot write to standard output";

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a line to standard error, and ignores errors.
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
