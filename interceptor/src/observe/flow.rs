//! One connection or DNS query, as observers see it. This is also the schema of `-o json`, which
//! docs/observe.md documents: fields are added, never changed.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use interceptor_ebpf::{Counted, Event, Owner};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes as _;

use crate::{
    outcome::{Direction, Outcome, Verdict},
    pod_name::PodName,
};

/// The protocol number of UDP.
const UDP: u16 = 17;

/// The outcome of one connection or DNS query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) time: Timestamp,
    pub(crate) pod: Pod,
    pub(crate) direction: Direction,
    pub(crate) protocol: Protocol,
    pub(crate) source: Endpoint,
    /// The original destination.
    pub(crate) destination: Endpoint,
    pub(crate) verdict: Verdict,
    /// The label of the rule that decided, as in the metrics.
    pub(crate) reason: String,
    /// The same in words.
    pub(crate) explanation: String,
    /// The port of the proxy that receives a captured connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proxy_port: Option<u16>,
    /// The process that connects, of an outbound connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) process: Option<Process>,
}

/// The pod of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pod {
    /// The namespace and the name, where a node agent runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The path of the network namespace; empty for one that has been detached since.
    pub(crate) netns: String,
    pub(crate) netns_cookie: u64,
}

impl Pod {
    pub(crate) fn new(name: Option<PodName>, netns: String, netns_cookie: u64) -> Self {
        let (namespace, name) = name.map(|pod| (pod.namespace, pod.name)).unzip();
        Self {
            namespace,
            name,
            netns,
            netns_cookie,
        }
    }

    /// The name, or the network namespace.
    pub(crate) fn display_name(&self) -> String {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ if self.netns.is_empty() => format!("netns cookie {}", self.netns_cookie),
            _ => self.netns.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) ip: IpAddr,
    /// Missing for a socket that has no port yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) command: String,
    /// The owner of the socket, as the rules see it. Missing for a socket without a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gid: Option<u32>,
}

impl Flow {
    /// The flow of an event that was written `age` ago.
    pub(crate) fn of(event: &Event, age: SignedDuration, pod: Pod) -> Result<Self> {
        let counted = Counted::all().nth(event.outcome as usize);
        let outcome = Outcome::from(
            counted
                .with_context(|| format!("an event has the unknown outcome {}", event.outcome))?,
        );
        Ok(Self {
            time: Timestamp::now() - age,
            pod,
            direction: outcome.direction,
            protocol: if event.protocol == UDP {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
            source: Endpoint::new(event.source.into(), event.source_port),
            destination: Endpoint::new(event.destination.into(), event.port),
            verdict: outcome.verdict,
            reason: outcome.reason.to_owned(),
            explanation: outcome.explanation.to_owned(),
            proxy_port: (event.proxy_port != 0).then_some(event.proxy_port),
            process: Process::of(event),
        })
    }
}

impl Endpoint {
    fn new(ip: IpAddr, port: u16) -> Self {
        Self {
            ip,
            port: (port != 0).then_some(port),
        }
    }
}

impl Process {
    /// Nothing for an event of a packet.
    fn of(event: &Event) -> Option<Self> {
        let known = |id| (id != Owner::NONE.uid).then_some(id);
        let command = event.command.as_bytes();
        let end = command.iter().position(|byte| *byte == 0);
        let command = &command[..end.unwrap_or(command.len())];
        (event.pid != 0).then(|| Self {
            pid: event.pid,
            command: String::from_utf8_lossy(command).into_owned(),
            uid: known(event.uid),
            gid: known(event.gid),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An outbound connection of the pod shop/web-0.
    pub(in crate::observe) fn flow() -> Flow {
        Flow {
            time: "2026-11-30T12:00:00.123456789Z".parse().unwrap(),
            pod: Pod {
                namespace: Some("shop".to_owned()),
                name: Some("web-0".to_owned()),
                netns: "/run/netns/web".to_owned(),
                netns_cookie: 7,
            },
            direction: Direction::Outbound,
            protocol: Protocol::Tcp,
            source: Endpoint::new("10.1.0.2".parse().unwrap(), 0),
            destination: Endpoint::new("10.2.0.9".parse().unwrap(), 80),
            verdict: Verdict::Captured,
            reason: "prefix_included".to_owned(),
            explanation: "the destination is included (-i)".to_owned(),
            proxy_port: Some(15001),
            process: Some(Process {
                pid: 4711,
                command: "curl".to_owned(),
                uid: Some(1000),
                gid: Some(1000),
            }),
        }
    }

    #[test]
    fn a_flow_survives_its_json() {
        let text = serde_json::to_string(&flow()).unwrap();
        assert!(text.contains(r#""verdict":"CAPTURED""#), "{text}");
        assert!(
            text.contains(r#""time":"2026-11-30T12:00:00.123456789Z""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Flow>(&text).unwrap(), flow());
    }
}
