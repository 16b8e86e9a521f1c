//! `cargo xtask demo`: demonstrates interception.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::{apt, build, command::display, envoy, kubectl, test};

/// The proxy that receives the connections.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Proxy {
    /// The project's own test proxy.
    Builtin,
    /// Envoy, configured as by a mesh.
    Envoy,
}

/// What the demo shows.
#[derive(Clone, Copy)]
pub(crate) enum What {
    /// A pod with this proxy.
    Pod(Proxy),
    /// The node agent.
    Agent,
    /// The injection of sidecars.
    Injection,
}

/// Builds everything and executes the demo in this process, so that signals and the exit code are the
/// demo's own.
pub(crate) fn run(what: What) -> Result<()> {
    ensure!(
        apt::is_root()?,
        "the demo loads BPF programs: run this as root"
    );
    test::prepare_pods()?;
    // Nothing is built with --release, which takes minutes more.
    let other_layout = match what {
        What::Agent => Some(build::other_layout()?),
        What::Pod(_) | What::Injection => None,
    };
    let interceptor = build::tested_with(&["demo", build::TEST_PROGRAMS])?;
    let mut demo = Command::new(build::built("demo"));
    demo.env("INTERCEPTOR_BIN", interceptor)
        .envs(other_layout.map(|binary| ("INTERCEPTOR_OTHER_BIN", binary)));
    match what {
        What::Pod(Proxy::Builtin) => demo.args(["--proxy", "builtin"]),
        What::Pod(Proxy::Envoy) => demo
            .args(["--proxy", "envoy"])
            .env("ENVOY_BIN", envoy::ensure()?),
        What::Agent => demo.arg("--agent").env("KUBECTL_BIN", kubectl::ensure()?),
        What::Injection => demo
            .arg("--inject")
            .env("ENVOY_BIN", envoy::ensure()?)
            .env("KUBECTL_BIN", kubectl::ensure()?),
    };
    Err(demo.exec()).with_context(|| format!("cannot run `{}`", display(&demo)))
}
