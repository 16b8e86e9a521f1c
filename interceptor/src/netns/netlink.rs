//! Routing netlink in the calling thread's network namespace.

use std::{cell::RefCell, io};

use anyhow::{Context as _, Result, bail};
use rtnetlink::{Handle, new_connection};
use tokio::{
    runtime::{self, Runtime},
    task::JoinHandle,
};

/// A netlink connection of the network namespace that the calling thread was in when it was opened.
#[derive(Debug)]
pub(crate) struct Session {
    runtime: Runtime,
    handle: Handle,
    /// Sends the requests and receives the responses. Ends only if the socket fails.
    connection: RefCell<JoinHandle<()>>,
}

impl Session {
    /// Opens a connection.
    pub(crate) fn open() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime for netlink")?;
        let (handle, connection) = runtime.block_on(async {
            let (connection, handle, _) =
                new_connection().context("cannot open a netlink socket")?;
            anyhow::Ok((handle, RefCell::new(tokio::spawn(connection))))
        })?;
        Ok(Self {
            runtime,
            handle,
            connection,
        })
    }

    /// Runs `work` with it. Fails if the socket does: a list of which the rest is missing would
    /// otherwise look complete, and a lost request like one that the kernel has executed, because
    /// `rtnetlink` reports both as the end of the response.
    pub(crate) fn run<T>(&self, work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
        let mut connection = self.connection.borrow_mut();
        if !connection.is_finished() {
            let done = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = &mut *connection => None,
                    done = work(self.handle.clone()) => Some(done),
                }
            });
            if let Some(done) = done {
                return done;
            }
        }
        bail!(
            "the netlink socket failed before the kernel's response was complete, so it is unknown \
             whether the request was executed: run the command again"
        )
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
