//! `cargo xtask demo`: shows the interception of connections.

mod agent;
mod inject;
mod pod;
mod result;
mod rows;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use interceptor_testkit::{
    interruption::{catch_interruptions, was_interrupted},
    sidecar::{Envoy, Proxy},
};

/// A shell's exit code for a program that SIGINT terminated.
const INTERRUPTED: u8 = 130;

/// Shows the results of a pod's connections, and that they are the same as behind Istio's iptables
/// rules
#[derive(Parser)]
#[command(name = "cargo xtask demo")]
struct Options {
    /// The proxy that gets the captured connections
    #[arg(long, value_enum, default_value = "builtin")]
    proxy: Kind,

    /// Show the node agent instead: pods appear, the agent is killed and upgraded
    #[arg(long, conflicts_with = "proxy")]
    agent: bool,

    /// Show the injection of sidecars instead: from a plain manifest to captured traffic
    #[arg(long, conflicts_with_all = ["proxy", "agent"])]
    inject: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// The small built-in proxy
    Builtin,
    /// The real Envoy, configured as Istio does
    Envoy,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if was_interrupted() => {
            eprintln!("demo: interrupted; everything is cleaned up");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    catch_interruptions()?;
    if options.agent {
        return agent::run();
    }
    if options.inject {
        return inject::run();
    }
    let proxy = match options.proxy {
        Kind::Builtin => Proxy::Builtin,
        Kind::Envoy => Proxy::Envoy(Envoy::new(1)?),
    };
    pod::run(&proxy)
}
