//! The namespaces, and the listeners in them.

use std::fs;

use anyhow::Result;
use socket2::Socket;

use super::{
    namespace::Namespace,
    tcp::{self, User},
};
use crate::lab::wait_until;

/// The remote server's port.
pub(super) const REMOTE_PORT: u16 = 80;
/// The app's port.
pub(super) const APP_PORT: u16 = 8080;
/// A port of the app that is excluded.
pub(super) const EXCLUDED_PORT: u16 = 15020;
/// A port without a listener.
pub(super) const UNUSED_PORT: u16 = 81;
/// The proxy's ports.
const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;
/// The proxy, whose listeners alone receive connections in strict mode.
pub(super) const PROXY: User = User { uid: 1337, gid: 0 };

/// A pod and its outside.
pub(super) struct Stage {
    pub(super) pod: Namespace,
    pub(super) outside: Namespace,
    /// A host that the pod forwards for.
    pub(super) inner: Namespace,
    pub(super) app: Socket,
    pub(super) excluded: Socket,
    pub(super) remote: Socket,
    pub(super) proxy: Proxy,
}

/// The listeners of a proxy, one per family, as Envoy has them.
#[derive(Default)]
pub(super) struct Proxy {
    pub(super) outbound: Vec<Socket>,
    pub(super) inbound: Vec<Socket>,
}

impl Stage {
    /// Sets it up; the proxy does not listen yet.
    pub(super) fn new() -> Result<Self> {
        let (pod, outside, inner) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        lay_cable(&pod, &outside)?;
        for command in [
            "addr add 10.1.0.2/24 dev veth0",
            "-6 addr add fd00:1::2/64 dev veth0",
            "link set veth0 up",
            "route add default via 10.1.0.1",
            "-6 route add default via fd00:1::1",
        ] {
            pod.ip(command)?;
        }
        put_inside(&pod, &outside, &inner)?;
        Ok(Self {
            app: tcp::listen(&pod, "[::]", APP_PORT)?,
            excluded: tcp::listen(&pod, "[::]", EXCLUDED_PORT)?,
            remote: tcp::listen(&outside, "[::]", REMOTE_PORT)?,
            proxy: Proxy::default(),
            pod,
            outside,
            inner,
        })
    }

    /// Deletes the addresses of the pod that end in 2, and adds some that end in 8.
    pub(super) fn renumber(&self) -> Result<()> {
        self.replace_addresses(2, 8)
    }

    /// Reverts that.
    pub(super) fn number_as_before(&self) -> Result<()> {
        self.replace_addresses(8, 2)
    }

    fn replace_addresses(&self, old: u8, new: u8) -> Result<()> {
        for command in [
            format!("addr del 10.1.0.{old}/24 dev veth0"),
            format!("addr add 10.1.0.{new}/24 dev veth0"),
            "route add default via 10.1.0.1".to_owned(),
            format!("-6 addr del fd00:1::{old}/64 dev veth0"),
            format!("-6 addr add fd00:1::{new}/64 dev veth0"),
        ] {
            self.pod.ip(&command)?;
        }
        // The kernel adds it asynchronously.
        let route = format!("fd00000100000000000000000000000{new} 80 ");
        wait_until("the new address's route", || {
            let routes = || Ok(fs::read_to_string("/proc/thread-self/net/ipv6_route")?);
            Ok(self.pod.enter(routes)?.contains(&route))
        })
    }
}

/// Busybox chooses the names itself, and does not support a namespace with `link add`.
fn lay_cable(pod: &Namespace, outside: &Namespace) -> Result<()> {
    pod.ip("link add type veth")?;
    pod.ip(&format!("link set dev veth1 netns {}", outside.thread()))?;
    for command in [
        "addr add 10.1.0.1/24 dev veth1",
        "-6 addr add fd00:1::1/64 dev veth1",
        "link set veth1 up",
    ] {
        outside.ip(command)?;
    }
    Ok(())
}

/// A second veth pair, and forwarding. The names are the next free ones.
fn put_inside(pod: &Namespace, outside: &Namespace, inner: &Namespace) -> Result<()> {
    pod.ip("link add type veth")?;
    pod.ip(&format!("link set dev veth2 netns {}", inner.thread()))?;
    for command in [
        "addr add 10.5.0.1/24 dev veth1",
        "-6 addr add fd00:5::1/64 dev veth1",
        "link set veth1 up",
    ] {
        pod.ip(command)?;
    }
    for command in [
        "addr add 10.5.0.2/24 dev veth2",
        "-6 addr add fd00:5::2/64 dev veth2",
        "link set veth2 up",
        "route add default via 10.5.0.1",
        "-6 route add default via fd00:5::1",
    ] {
        inner.ip(command)?;
    }
    outside.ip("route add 10.5.0.0/24 via 10.1.0.2")?;
    outside.ip("-6 route add fd00:5::/64 via fd00:1::2")?;
    pod.sysctl("net/ipv4/ip_forward", "1")?;
    pod.sysctl("net/ipv6/conf/all/forwarding", "1")
}

impl Proxy {
    /// Listens for outbound connections.
    pub(super) fn listen_outbound(&mut self, pod: &Namespace) -> Result<()> {
        self.outbound = both_families(pod, OUTBOUND_PORT)?;
        Ok(())
    }

    /// Listens for inbound connections.
    pub(super) fn listen_inbound(&mut self, pod: &Namespace) -> Result<()> {
        self.inbound = both_families(pod, INBOUND_PORT)?;
        Ok(())
    }
}

fn both_families(pod: &Namespace, port: u16) -> Result<Vec<Socket>> {
    ["0.0.0.0", "[::]"]
        .iter()
        .map(|wildcard| tcp::listen_in_one_family(pod, PROXY, wildcard, port))
        .collect()
}
