//! IPv4 and IPv6 addresses in one type.

use core::{
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::layout::map_type;

/// The third word of every IPv4-mapped address, `::ffff:a.b.c.d`.
const MAPPED: u32 = 0xffff_u32.to_be();

map_type! {
    /// An IP address in network byte order; an IPv4 address is stored IPv4-mapped
    /// (`::ffff:a.b.c.d`), so that both families share one code path, and IPv6 sockets with
    /// IPv4-mapped addresses are IPv4, as for iptables.
    #[derive(Eq)]
    pub struct Address: 16 {
        words: [u32; 4],
    }
}

/// Compares all words without branches: the BPF verifier would follow a path for each branch of every
/// comparison.
impl PartialEq for Address {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (self.words, other.words);
        (one[0] ^ two[0]) | (one[1] ^ two[1]) | (one[2] ^ two[2]) | (one[3] ^ two[3]) == 0
    }
}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words.hash(state);
    }
}

impl Address {
    /// `::`, which is not the IPv4 wildcard.
    pub const UNSPECIFIED_V6: Self = Self::from_words([0; 4]);
    /// `0.0.0.0`.
    pub const UNSPECIFIED_V4: Self = Self::from_v4(0);
    /// `::1`.
    pub const LOCALHOST_V6: Self = Self::from_words([0, 0, 0, 1_u32.to_be()]);
    /// `127.0.0.1`.
    pub const LOCALHOST_V4: Self = Self::from_v4(0x7f00_0001_u32.to_be());
    /// `127.0.0.6`, the source of Envoy's inbound passthrough and of pilot-agent's probes.
    pub const PASSTHROUGH_V4: Self = Self::from_v4(0x7f00_0006_u32.to_be());
    /// `::6`, the same for IPv6.
    pub const PASSTHROUGH_V6: Self = Self::from_words([0, 0, 0, 6_u32.to_be()]);

    /// An IPv4 address in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(address: u32) -> Self {
        Self::from_words([0, 0, MAPPED, address])
    }

    /// An IPv6 address in four words of network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// The four words, in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u32; 4] {
        self.words
    }

    /// The IPv4 address in network byte order, if it is one.
    #[inline(always)]
    #[must_use]
    pub const fn v4(self) -> Option<u32> {
        if self.is_v4() {
            Some(self.words[3])
        } else {
            None
        }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        let [a, b, c, _] = self.words;
        a | b | (c ^ MAPPED) == 0
    }

    /// Whether this is `0.0.0.0` or `::`.
    #[inline(always)]
    #[must_use]
    pub fn is_unspecified(self) -> bool {
        self.words[3] == 0 && (self.is_v4() || self == Self::UNSPECIFIED_V6)
    }

    /// `0.0.0.0` for an IPv4 address, `::` for an IPv6 one.
    #[inline(always)]
    #[must_use]
    pub const fn unspecified(self) -> Self {
        if self.is_v4() {
            Self::UNSPECIFIED_V4
        } else {
            Self::UNSPECIFIED_V6
        }
    }

    /// Whether this is in `127.0.0.0/8` or `::1`.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(self) -> bool {
        if let Some(v4) = self.v4() {
            return u32::from_be(v4) >> 24 == 127;
        }
        let [a, b, c, d] = self.words;
        a | b | c | (d ^ 1_u32.to_be()) == 0
    }

    /// `127.0.0.1` for an IPv4 address, `::1` for an IPv6 one.
    #[inline(always)]
    #[must_use]
    pub const fn localhost(self) -> Self {
        if self.is_v4() {
            Self::LOCALHOST_V4
        } else {
            Self::LOCALHOST_V6
        }
    }

    /// `127.0.0.6` for an IPv4 address, `::6` for an IPv6 one.
    #[inline(always)]
    #[must_use]
    pub const fn passthrough(self) -> Self {
        if self.is_v4() {
            Self::PASSTHROUGH_V4
        } else {
            Self::PASSTHROUGH_V6
        }
    }

    /// Whether this is an IPv6 link-local address, `fe80::/10`.
    #[inline(always)]
    #[must_use]
    pub const fn is_v6_link_local(self) -> bool {
        u32::from_be(self.words[0]) >> 22 == 0xfe80 >> 6
    }

    /// Whether TCP to this address always fails in the kernel: multicast, and `255.255.255.255`
    /// (`tcp_v4_connect` and `tcp_v6_connect` return ENETUNREACH).
    #[inline(always)]
    #[must_use]
    pub const fn is_never_tcp(self) -> bool {
        match self.v4() {
            Some(v4) => {
                let v4 = u32::from_be(v4);
                v4 >> 28 == 0xe || v4 == u32::MAX
            }
            None => u32::from_be(self.words[0]) >> 24 == 0xff,
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_v4(address.to_bits().to_be())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        let [a, b, c, d] = [96, 64, 32, 0].map(|shift| word(address.to_bits(), shift));
        Self::from_words([a, b, c, d])
    }
}

/// The 32 bits of `bits` that start at `shift`, in network byte order.
fn word(bits: u128, shift: u32) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the truncation picks the word"
    )]
    let word = (bits >> shift) as u32;
    word.to_be()
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        let bits = address
            .words
            .into_iter()
            .fold(0, |bits, word| bits << 32 | u128::from(u32::from_be(word)));
        Self::V6(Ipv6Addr::from_bits(bits)).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn an_ipv4_address_is_stored_mapped_in_network_byte_order() {
        assert_eq!(address("10.1.2.3"), address("::ffff:10.1.2.3"));
        assert_eq!(
            address("10.1.2.3").v4(),
            Some(u32::from_ne_bytes([10, 1, 2, 3]))
        );
        assert_eq!(address("fd00::1").v4(), None);
    }

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["0.0.0.0", "::", "::1", "127.0.0.1", "fd00:1:2:3:4:5:6:7"] {
            assert_eq!(IpAddr::from(address(text)).to_string(), text);
        }
    }

    #[test]
    fn the_two_wildcards_are_unspecified_and_differ() {
        assert!(address("0.0.0.0").is_unspecified());
        assert!(address("::").is_unspecified());
        assert_ne!(address("0.0.0.0"), address("::"));
        assert!(!address("1::").is_unspecified());
        assert!(!address("10.0.0.0").is_unspecified());
    }

    #[test]
    fn multicast_and_limited_broadcast_never_carry_tcp() {
        for text in ["224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1"] {
            assert!(address(text).is_never_tcp(), "{text}");
        }
        for text in [
            "223.255.255.255",
            "240.0.0.1",
            "127.0.0.1",
            "fe80::1",
            "::1",
        ] {
            assert!(!address(text).is_never_tcp(), "{text}");
        }
    }

    #[test]
    fn ipv6_link_local_is_fe80_10() {
        for text in ["fe80::1", "febf::1"] {
            assert!(address(text).is_v6_link_local(), "{text}");
        }
        for text in ["fec0::1", "fe00::1", "fd00::1", "169.254.1.1"] {
            assert!(!address(text).is_v6_link_local(), "{text}");
        }
    }

    extern crate std;
    use std::string::ToString as _;
}
