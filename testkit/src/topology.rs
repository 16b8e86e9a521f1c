//! The addresses and routes that the pods of most tests share.
//!
//! A veth pair connects a pod (`10.1.0.2`, `fd00:1::2`) with its peer (`10.1.0.1`, `fd00:1::1`):
//! `eth0` on both sides. The peer is the pod's gateway, and a server off the link (`10.2.0.9`,
//! `fd00:2::9`).
//!
//! Three others are separate on purpose: `world` has two veth pairs and every kind of route,
//! `smoke` must run with busybox in an initramfs, and the benchmark's growing node has no peers.

use anyhow::Result;

use crate::netns::Netns;

const POD_V4: &str = "
addr add 10.1.0.2/24 dev eth0
route add default via 10.1.0.1
";

const POD_V6: &str = "
addr add fd00:1::2/64 dev eth0 nodad
route add ::/0 via fd00:1::1
";

const PEER_V4: &str = "
addr add 10.1.0.1/24 dev eth0
addr add 10.2.0.9/32 dev lo
";

const PEER_V6: &str = "
addr add fd00:1::1/64 dev eth0 nodad
addr add fd00:2::9/128 dev lo nodad
";

/// Connects a pod with its peer, over IPv4 and IPv6.
pub fn connect(pod: &Netns, peer: &Netns) -> Result<()> {
    connect_v4(pod, peer)?;
    peer.ip(PEER_V6)?;
    pod.ip(POD_V6)
}

/// Connects a pod with its peer, over IPv4 alone.
pub fn connect_v4(pod: &Netns, peer: &Netns) -> Result<()> {
    pod.cable("eth0", peer, "eth0", 1)?;
    peer.ip(PEER_V4)?;
    pod.ip(POD_V4)
}
