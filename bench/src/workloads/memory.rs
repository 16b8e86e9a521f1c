//! Memory per connection and per destination.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result, bail};
use interceptor_testkit::command::{bounded, run as run_command};
use serde::Deserialize;

use crate::{
    Contestant, Direction, Pod, Row, Scale, Section, Unit,
    charts::{Chart, Line},
    load::{LoadReply, LoadRequest},
    pod::stock,
    results::Numbers,
};

/// The number of destinations of the connections, so that ephemeral ports suffice.
const DESTINATIONS: u8 = 8;
/// An address without a server; the proxy responds for all.
const FIRST: ([u8; 4], u16) = ([10, 128, 0, 0], 80);

/// A map, as `bpftool` shows it.
#[derive(Deserialize)]
struct Map {
    name: Option<String>,
    bytes_memlock: u64,
}

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let mut notes = Vec::new();
    let held = Contestant::INTERCEPTING.map(|contestant| hold(scale, contestant, &mut notes));
    let visited = Contestant::INTERCEPTING.map(|contestant| visit(scale, contestant));
    let mut rows = Vec::new();
    let held = held.into_iter().collect::<Result<Vec<_>>>()?;
    for (index, count) in scale.held.iter().enumerate() {
        rows.push(row(&format!("{count} connections open"), &held, index));
    }
    let visited = visited.into_iter().collect::<Result<Vec<_>>>()?;
    for (index, count) in scale.destinations.iter().enumerate() {
        rows.push(row(
            &format!("{count} destinations visited"),
            &visited,
            index,
        ));
    }
    let counts: Vec<f64> = scale.destinations.iter().copied().map(f64::from).collect();
    Ok(Section {
        method: format!(
            "The memory of an interception: behind iptables, connections in the pod's conntrack \
             table times the size of one (nf_conntrack in /proc/slabinfo, {} bytes here; hash \
             table and NAT's index not counted); with Interceptor, the growth of its maps' memory, \
             as the kernel reports it for each map (bytes_memlock). Sockets are the same for all. \
             A closed connection stays in conntrack for 10 to 120 s.",
            entry_size()?
        ),
        charts: vec![Chart::lines(
            "memory",
            "Memory after visiting destinations",
            ("destinations", "bytes"),
            true,
            lines(&counts, &visited),
        )],
        rows,
        notes,
        ..Section::default()
    })
}

fn lines(counts: &[f64], visited: &[Numbers]) -> Vec<Line> {
    let line = |(name, bytes): &Numbers| Line {
        name: name.clone(),
        points: counts.iter().copied().zip(bytes.iter().copied()).collect(),
    };
    visited.iter().map(line).collect()
}

fn row(what: &str, bytes: &[Numbers], index: usize) -> Row {
    let numbers: Vec<Numbers> = bytes
        .iter()
        .map(|(name, bytes)| {
            (
                name.clone(),
                bytes.get(index).copied().into_iter().collect(),
            )
        })
        .collect();
    Row::new(what, Unit::Bytes, &numbers)
}

/// The bytes used while this many connections are open.
fn hold(scale: &Scale, contestant: Contestant, notes: &mut Vec<String>) -> Result<Numbers> {
    let pod = Pod::new(contestant, &stock())?;
    let before = kept(&pod)?;
    let mut bytes = Vec::new();
    for count in scale.held {
        let spread = count.min(&usize::from(DESTINATIONS)).to_owned();
        let destination = |number: usize| -> Result<SocketAddr> {
            Ok(([10, 2, 1, u8::try_from(number)?], 80).into())
        };
        let to = (0..spread).map(destination).collect::<Result<Vec<_>>>()?;
        let each = count / spread;
        let request = LoadRequest::Hold { to, each };
        let LoadReply::Held { open, errors } = pod.call(Direction::Outbound, &request)? else {
            bail!("not held");
        };
        if !errors.is_empty() {
            notes.push(format!(
                "{contestant}: of {count} connections {open} could be opened: {errors:?}."
            ));
        }
        bytes.push(kept(&pod)? - before);
        pod.call(Direction::Outbound, &LoadRequest::Release)?;
    }
    Ok((contestant.to_string(), bytes))
}

/// The bytes used after this many destinations were visited.
fn visit(scale: &Scale, contestant: Contestant) -> Result<Numbers> {
    let mut bytes = Vec::new();
    for count in scale.destinations {
        let pod = Pod::new(contestant, &stock())?;
        let before = kept(&pod)?;
        let request = LoadRequest::Visit {
            first: FIRST.into(),
            count: *count,
        };
        pod.call(Direction::Outbound, &request)?;
        bytes.push(kept(&pod)? - before);
    }
    Ok((contestant.to_string(), bytes))
}

/// The bytes used by a pod's interception. Those of Interceptor are of all pods.
fn kept(pod: &Pod) -> Result<f64> {
    match pod.contestant() {
        Contestant::Direct => Ok(0.0),
        Contestant::Iptables => {
            let entries = u32::try_from(pod.tracked()?)?;
            Ok(f64::from(entries) * f64::from(entry_size()?))
        }
        Contestant::Interceptor => maps(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "some megabytes")]
fn maps() -> Result<f64> {
    let text = run_command(bounded("bpftool").args(["-j", "map", "show"]), "")?;
    let maps: Vec<Map> = serde_json::from_str(&text)?;
    let ours = maps.iter().filter(|map| {
        map.name
            .as_deref()
            .unwrap_or_default()
            .starts_with("icept_")
    });
    Ok(ours.map(|map| map.bytes_memlock).sum::<u64>() as f64)
}

/// The size of one entry of conntrack.
fn entry_size() -> Result<u32> {
    let slabs = fs::read_to_string("/proc/slabinfo").context("/proc/slabinfo")?;
    let line = slabs.lines().find(|line| line.starts_with("nf_conntrack "));
    // name, active_objs, num_objs, objsize
    let size = line.and_then(|line| line.split_whitespace().nth(3));
    size.context("/proc/slabinfo has no nf_conntrack")?
        .parse()
        .context("objsize")
}
