//! Routing netlink in the calling thread's network namespace.

use std::io;

use anyhow::{Context as _, Result};
use rtnetlink::{Handle, new_connection};
use tokio::runtime::{self, Runtime};

/// A netlink connection of the network namespace that the calling thread was in when it was opened.
#[derive(Debug)]
pub(crate) struct Session {
    runtime: Runtime,
    handle: Handle,
}

impl Session {
    /// Opens a connection.
    pub(crate) fn open() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime for netlink")?;
        let handle = runtime.block_on(async {
            let (connection, handle, _) =
                new_connection().context("cannot open a netlink socket")?;
            tokio::spawn(connection);
            anyhow::Ok(handle)
        })?;
        Ok(Self { runtime, handle })
    }

    /// Runs `work` with it.
    pub(crate) fn run<T>(&self, work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
        self.runtime.block_on(work(self.handle.clone()))
    }
}

/// Runs `work` with a netlink connection of the network namespace that the calling thread is in.
pub(crate) fn run<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    Session::open()?.run(work)
}

/// The errno in the kernel's response, if the error is one.
#[must_use]
pub(crate) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => io::Error::from(message.clone()).raw_os_error(),
        _ => None,
    }
}
