//! Addresses and routes.

use anyhow::Result;

use crate::netns::Netns;

/// The addresses and routes of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// IPv4 addresses.
    pub v4: bool,
    /// IPv6 addresses.
    pub v6: bool,
    /// A default route. Without one, only `10.0.0.0/8` and `fd00::/16` have a route.
    pub default_route: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            v4: true,
            v6: true,
            default_route: true,
        }
    }
}

const POD_V4: &str = "
addr add 10.1.0.2/24 broadcast + dev eth0
addr add 10.1.0.3/24 broadcast + dev eth0
addr add 10.3.0.2/24 broadcast + dev eth1
route add 10.9.0.0/24 via 10.1.0.1 src 10.1.0.3
route add 10.8.0.0/24 via 10.1.0.1 src 10.3.0.2
route add 10.4.0.0/16 via 10.3.0.1 dev eth1
route add unreachable 10.66.1.0/24
route add prohibit 10.66.2.0/24
route add blackhole 10.66.3.0/24
route add throw 10.66.4.0/24
";

const POD_V6: &str = "
addr add fd00:1::2/64 dev eth0 nodad
addr add fd00:1::3/64 dev eth0 nodad
addr add fd00:3::2/64 dev eth1 nodad
route add fd00:9::/64 via fd00:1::1 src fd00:1::2
route add fd00:8::/64 via fd00:1::1 src fd00:3::2
route add fd00:4::/64 via fd00:3::1 dev eth1
route add unreachable fd00:66:1::/64
route add prohibit fd00:66:2::/64
route add blackhole fd00:66:3::/64
route add throw fd00:66:4::/64
";

const PEER_V4: &str = "
addr add 10.1.0.1/24 dev eth0
addr add 10.3.0.1/24 dev eth1
addr add 10.2.0.9/32 dev lo
addr add 10.2.0.10/32 dev lo
addr add 10.2.0.11/32 dev lo
addr add 10.4.0.1/32 dev lo
addr add 10.8.0.1/32 dev lo
addr add 10.9.0.1/32 dev lo
addr add 10.96.0.10/32 dev lo
addr add 198.51.100.9/32 dev lo
";

const PEER_V6: &str = "
addr add fd00:1::1/64 dev eth0 nodad
addr add fd00:3::1/64 dev eth1 nodad
addr add fd00:2::9/128 dev lo nodad
addr add fd00:2::10/128 dev lo nodad
addr add fd00:2::11/128 dev lo nodad
addr add fd00:4::1/128 dev lo nodad
addr add fd00:8::1/128 dev lo nodad
addr add fd00:9::1/128 dev lo nodad
addr add fd00:96::10/128 dev lo nodad
addr add 2001:db8::9/128 dev lo nodad
";

impl Layout {
    /// Creates the veth pairs, addresses and routes.
    pub(super) fn apply(self, pod: &Netns, peer: &Netns) -> Result<()> {
        pod.cable("eth0", peer, "eth0", 1)?;
        pod.cable("eth1", peer, "eth1", 2)?;
        if self.v4 {
            peer.ip(PEER_V4)?;
            pod.ip(POD_V4)?;
            let net = if self.default_route {
                "default"
            } else {
                "10.0.0.0/8"
            };
            pod.ip(&format!("route add {net} via 10.1.0.1"))?;
        }
        if self.v6 {
            peer.ip(PEER_V6)?;
            pod.ip(POD_V6)?;
            let net = if self.default_route {
                "::/0"
            } else {
                "fd00::/16"
            };
            pod.ip(&format!("route add {net} via fd00:1::1"))?;
        }
        Ok(())
    }

    /// Whether istio-iptables writes IPv6 rules here: with dual-stack if any address is IPv6, else
    /// if the first is; IPv4 addresses come first.
    pub(super) const fn is_ipv6_captured(self, dual_stack: bool) -> bool {
        self.v6 && (dual_stack || !self.v4)
    }
}
