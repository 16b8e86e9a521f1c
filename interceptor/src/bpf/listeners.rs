//! Finds the proxy's listeners that were open before a pod is attached.

use std::io::{self, Read as _};

use anyhow::{Context as _, Result};
use aya::programs::Iter;

use super::{hooks::ITER_PROGRAM, object::Object};

/// Walks the TCP sockets of the network namespace that the calling thread is in, and notes those
/// that listen on a port in `icept_lports`.
///
/// # Minimum kernel version
///
/// 5.10: `iter/tcp` that may put sockets into a map.
pub fn note_open(object: &mut Object) -> Result<()> {
    let mut program = Iter::from_pin(object.program(ITER_PROGRAM)?)
        .with_context(|| format!("cannot open {ITER_PROGRAM}"))?;
    let id = program.attach().context("cannot attach the iterator")?;
    let mut iteration = program.take_link(id)?.into_file()?;
    // The program says nothing; reading to the end is what makes it visit every socket.
    io::copy(&mut iteration.by_ref(), &mut io::sink()).context("cannot walk the TCP sockets")?;
    Ok(())
}
