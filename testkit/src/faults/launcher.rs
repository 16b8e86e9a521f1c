//! The launcher: `SOCKET PROGRAM [ARGUMENT...]`.

use std::{
    convert::Infallible,
    ffi::OsString,
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_no_new_privs;

use super::{call::NUMBERS, seccomp};

/// Executes a program whose calls the supervisor at a socket decides about.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> Result<Infallible> {
    let socket = arguments.next().context("the supervisor's socket")?;
    let program = arguments.next().context("a program")?;
    let supervisor = UnixStream::connect(socket)?;
    set_no_new_privs()?;
    let listener = seccomp::install(NUMBERS)?;
    offer(&supervisor, &listener).context("cannot pass the filter's listener")?;
    Err(Command::new(program).args(arguments).exec().into())
}

/// Lets the supervisor copy the listener. Until then no process responds to a call that the filter has:
/// `writev(2)` and `readv(2)` are not among them.
fn offer(mut supervisor: &UnixStream, listener: &OwnedFd) -> io::Result<()> {
    let number = listener.as_raw_fd().to_ne_bytes();
    let sent = supervisor.write_vectored(&[IoSlice::new(&number)])?;
    let received = supervisor.read_vectored(&mut [IoSliceMut::new(&mut [0])])?;
    if sent == number.len() && received == 1 {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
