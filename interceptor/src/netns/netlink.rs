//! Routing netlink in the calling thread's network namespace.

use std::io;

use anyhow::{Context as _, Result};
use rtnetlink::{Handle, new_connection};

/// Runs `work` with a netlink connection of the network namespace that the calling thread is in.
pub fn run<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime for netlink")?;
    runtime.block_on(async {
        let (connection, handle, _) = new_connection().context("cannot open a netlink socket")?;
        tokio::spawn(connection);
        work(handle).await
    })
}

/// The errno that the kernel answered a request with, if it was an answer.
#[must_use]
pub fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => io::Error::from(message.clone()).raw_os_error(),
        _ => None,
    }
}
