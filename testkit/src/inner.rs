//! A host on a bridge inside a pod, for which the pod forwards: a Docker container, or a virtual
//! machine.
//!
//! ```text
//!  pod: br0 172.17.0.1, fd00:17::1 ── vm0 ── inner: eth0 172.17.0.2, fd00:17::2
//! ```

use anyhow::Result;

use crate::netns::Netns;

const BRIDGE: &str = "
link add br0 address 02:00:00:00:00:17 type bridge
link set br0 up
";

const BRIDGE_ADDRESSES: &str = "
addr add 172.17.0.1/16 broadcast + dev br0
addr add fd00:17::1/64 dev br0 nodad
";

const INNER: &str = "
addr add 172.17.0.2/16 broadcast + dev eth0
addr add fd00:17::2/64 dev eth0 nodad
route add default via 172.17.0.1
route add ::/0 via fd00:17::1
";

const PEER: &str = "
route add 172.17.0.0/16 via 10.1.0.2
route add fd00:17::/64 via fd00:1::2
";

const FORWARDING: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];

/// Puts `inner` on a bridge inside `pod`, and adds the route to it on `peer`.
pub fn put_inside(pod: &Netns, peer: &Netns, inner: &Netns) -> Result<()> {
    pod.ip(BRIDGE)?;
    pod.cable("vm0", inner, "eth0", 8)?;
    pod.ip("link set vm0 master br0")?;
    pod.ip(BRIDGE_ADDRESSES)?;
    inner.ip(INNER)?;
    peer.ip(PEER)?;
    forward(pod, true)
}

/// Whether `pod` forwards.
pub fn forward(pod: &Netns, does: bool) -> Result<()> {
    let value = if does { "1" } else { "0" };
    FORWARDING
        .iter()
        .try_for_each(|name| pod.sysctl(name, value))
}
