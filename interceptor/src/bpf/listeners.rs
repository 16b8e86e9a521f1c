//! Finds the proxy's listeners that were open before a pod is attached.

use std::io::{self, Read as _};

use anyhow::{Context as _, Result};
use aya::programs::Iter;

use super::{hooks::ITER_PROGRAM, object::Object};

/// Iterates over the TCP sockets of the calling thread's network namespace, and registers those that
/// listen on a port in `icept_lports`.
///
/// # Minimum kernel version
///
/// 5.10: `iter/tcp` that may put sockets into a map.
pub(crate) fn register_open(object: &mut Object) -> Result<()> {
    let mut program = Iter::from_pin(object.program(ITER_PROGRAM)?)
        .with_context(|| format!("cannot open {ITER_PROGRAM}"))?;
    let id = program.attach().context("cannot attach the iterator")?;
    let mut iteration = program.take_link(id)?.into_file()?;
    // The program writes nothing; reading to the end makes it visit every socket.
    io::copy(&mut iteration.by_ref(), &mut io::sink())
        .context("cannot iterate over the TCP sockets")?;
    Ok(())
}
