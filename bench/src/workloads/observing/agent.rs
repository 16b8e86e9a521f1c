//! What observers cost the node agent.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use interceptor_testkit::node::{Driver, Node};

use crate::{
    Contestant, Direction, Pod, Row, Scale, Unit,
    pod::stock,
    process::{peak_memory, processor_time},
    results::Numbers,
    workloads::setup::connect,
};

pub(super) const METHOD: &str = "Then an agent of a node has three observers and an open page, \
    which follows flows, while a client makes 1,000 connections in each second, in ten parts. The \
    agent's memory is its largest resident set. Its processor time is that of one of these seconds.";

/// Three observers and a page.
const OBSERVERS: [&str; 4] = [
    "/v1/flows?follow=true",
    "/v1/flows?follow=true",
    "/v1/flows?follow=true",
    "/v1/events?flows=true",
];

const PARTS_PER_SECOND: u32 = 10;
const CONNECTIONS_PER_PART: usize = 100;

pub(super) fn run(scale: &Scale) -> Result<[Row; 2]> {
    let node = Node::make(Driver::Systemd, None)?;
    let agent = node.start_ready_agent(&["--no-cni"])?;
    let pod = Pod::new(Contestant::Interceptor, &stock())?;
    for path in OBSERVERS {
        observe(&node.dir().join("observe.sock"), path)?;
    }
    connect_each_second(&pod, 1)?;
    let before = processor_time(agent.pid())?;
    connect_each_second(&pod, scale.observed_seconds)?;
    let used = processor_time(agent.pid())?.saturating_sub(before);
    let row = |what: &str, unit, number| {
        let numbers: [Numbers; 1] = [("the agent".to_owned(), vec![number])];
        Row::new(
            format!("a page and three observers, {what}"),
            unit,
            &numbers,
        )
    };
    let memory = peak_memory(agent.pid())? / f64::from(1 << 20);
    let each_second = used.as_secs_f64() / f64::from(scale.observed_seconds);
    Ok([
        row("memory", Unit::Mebibytes, memory),
        row("processor time in a second", Unit::CpuSeconds, each_second),
    ])
}

/// Sends a request to the agent, and reads the response until the agent exits.
fn observe(socket: &Path, path: &str) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut status = [0; 15];
    stream.read_exact(&mut status)?;
    ensure!(&status == b"HTTP/1.1 200 OK", "{path}: no status 200");
    thread::spawn(move || {
        let mut buffer = [0; 1 << 14];
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    });
    Ok(())
}

fn connect_each_second(pod: &Pod, seconds: u32) -> Result<()> {
    let start = Instant::now();
    for part in 0..seconds * PARTS_PER_SECOND {
        let due = start + Duration::from_secs(part.into()) / PARTS_PER_SECOND;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        connect(pod, Direction::Outbound, CONNECTIONS_PER_PART)?;
    }
    Ok(())
}
