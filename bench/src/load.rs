//! The processes that generate and accept the load: small, without logging, each in the network
//! namespace, the cgroup and with the user that its sockets should have.

mod client;
mod protocol;
mod server;
mod worker;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::{
        resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
        time::TimeVal,
    },
    unistd::Pid,
};
pub(crate) use protocol::{LoadConfig, LoadReply, LoadRequest};
pub use worker::LOAD;
pub(crate) use worker::Worker;

/// The main function of a load process; `config` is its command line.
pub fn run(config: &str) -> Result<()> {
    let config: LoadConfig = serde_json::from_str(config)?;
    // As many connections as possible: not every root may raise the limit itself.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    config.actor.enter()?;
    if let Some(cpu) = config.cpu {
        stay(cpu)?;
    }
    if config.serves.is_empty() {
        client::run()
    } else {
        server::run(&config.serves)
    }
}

/// Pins this process to a processor.
fn stay(cpu: usize) -> io::Result<LoadReply> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    Ok(LoadReply::Done)
}

/// The CPU time of this process, in the kernel too.
fn used() -> io::Result<LoadReply> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = |time: TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs())
            + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    let all = seconds(usage.user_time()) + seconds(usage.system_time());
    Ok(LoadReply::Used(all.as_secs_f64()))
}

fn send_reply(reply: &LoadReply) -> Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, reply)?;
    stdout.write_all(b"\n")?;
    Ok(stdout.flush()?)
}
