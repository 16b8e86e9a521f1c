//! A pod with a working proxy, which forwards captured connections to an app and to remote servers.
//!
//! ```text
//!  pod                                             outside
//!  app :8080 :15020, proxy :15001 :15006           client, remote :80
//!  eth0 10.1.0.2, fd00:1::2 ────────────────────── eth0 10.1.0.1, fd00:1::1
//!                                                  lo   10.2.0.9, fd00:2::9
//! ```

mod builtin;
mod client;
pub mod envoy;
mod exchange;
mod first;
pub mod launch;
mod scene;
mod server;

use std::env;

use anyhow::{Result, bail};
pub use builtin::{INBOUND_PORT, OUTBOUND_PORT};
pub use client::{ClientView, send_http, send_line};
pub use envoy::Envoy;
pub use exchange::{ProxyReport, ServerResponse};
pub use first::{ATTEMPTS, Attempt, FIRST_SOURCE_PORT};
pub use scene::{Proxy, Scene, SceneClient};
pub use server::RecordingServer;

use crate::settings::Mode;

/// The binary with the programs of a [`Scene`].
pub(crate) const BINARY: &str = "interceptor-test-sidecar";

/// The binary's main function: runs one of the programs.
pub fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["proxy"] => builtin::run(Mode::Redirect),
        ["proxy", "transparent"] => builtin::run(Mode::Tproxy),
        ["first", to] => first::run(to),
        ["server", name, ports @ ..] => server::run(name, ports),
        other => bail!("not a program: {other:?}"),
    }
}
