//! A process of `interceptor webhook`.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{lab::wait_until, spawn::spawn};

/// Arguments with which it listens on free ports.
pub const ARGUMENTS: [&str; 3] = [
    "webhook",
    "--listen=127.0.0.1:0",
    "--http-address=127.0.0.1:0",
];

/// The process. Killed when dropped.
pub struct Webhook {
    child: Child,
    /// The address of `/inject`.
    pub https: SocketAddr,
    /// The address of `/readyz` and `/metrics`.
    pub http: SocketAddr,
    log: PathBuf,
}

impl Webhook {
    /// Runs `command`, which has [`ARGUMENTS`], with its log in the file `log`. Returns when it
    /// listens.
    pub fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let output = File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let mut child = spawn(command)?;
        match await_addresses(&mut child, &log) {
            Ok((https, http)) => Ok(Self {
                child,
                https,
                http,
                log,
            }),
            Err(error) => {
                // Both fail only for a child that was waited for before.
                let _killed = child.kill();
                let _status = child.wait();
                Err(error.context(read(&log)))
            }
        }
    }

    /// Its process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        read(&self.log)
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Waits until the log has its addresses: HTTPS, then HTTP.
fn await_addresses(child: &mut Child, log: &PathBuf) -> Result<(SocketAddr, SocketAddr)> {
    let mut found = None;
    wait_until("the webhook listens", || {
        ensure!(child.try_wait()?.is_none(), "the webhook has exited");
        found = read(log).lines().find_map(addresses_in);
        Ok(found.is_some())
    })?;
    found.context("no addresses")
}

/// `listening on 127.0.0.1:4711 (HTTPS) and 127.0.0.1:4712 (HTTP)`
fn addresses_in(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (_, addresses) = line.split_once("listening on ")?;
    let (https, http) = addresses.split_once(" (HTTPS) and ")?;
    let http = http.strip_suffix(" (HTTP)")?;
    Some((https.parse().ok()?, http.parse().ok()?))
}

fn read(log: &PathBuf) -> String {
    fs::read_to_string(log).unwrap_or_default()
}
