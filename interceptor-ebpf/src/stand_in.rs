//! Stand-ins: the loopback addresses and ports that replace captured destinations.
//!
//! A stand-in is an address *and* a port. Together they encode a number that a pod increments and
//! does not reuse within 2³³ allocations, so that a query about an old connection returns its own
//! destination or nothing, never that of another connection.
//!
//! ```text
//! IPv4   127.128.0.0/9     | source: 6 bits | number, low 17 bits |   port: number, the rest
//! IPv6   fd69:6365:7074::/64, the same 23 bits at the end         |
//!
//! for connections that the pod would forward:
//! IPv4   0.128.0.0/15                       | number, low 17 bits |
//! IPv6   the same as above, without a source                      |
//! ```
//!
//! (The kernel accepts packets to 127.0.0.0/8 only from `lo`, unless `route_localnet` is on, which
//! opens the pod's localhost to the link. 0.0.0.0/8 is not assigned to anyone, and Linux treats it
//! like any other range.)

use crate::{Address, Destination, MAX_STAND_INS, NetnsCookie, SlotKey};

/// The number of a stand-in, which a pod increments.
pub type StandInNumber = u64;

/// The number of source addresses of a pod that have a part of the range.
pub const SOURCES: u8 = SOURCELESS;

/// The last part of the range. It belongs to no source address, and so always works.
pub const SOURCELESS: u8 = (1 << SOURCE_BITS) - 1;

/// Length of the IPv4 prefix that belongs to one source address.
pub const STAND_IN_V4_PREFIX_LEN: u8 = 32 - INDEX_BITS;

/// Length of the IPv6 prefix that belongs to one source address.
pub const STAND_IN_V6_PREFIX_LEN: u8 = 128 - INDEX_BITS;

const SOURCE_BITS: u8 = 6;
const INDEX_BITS: u8 = 17;
const LOW_BITS: u8 = SOURCE_BITS + INDEX_BITS;
const LOW_MASK: u32 = (1 << LOW_BITS) - 1;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
/// Ports 1 to 65535.
const PORTS: u64 = u16::MAX as u64;

/// The number of slots for stand-ins of a pod.
const SLOTS: u64 = MAX_STAND_INS as u64;

const V4_BASE: u32 = 0x7f80_0000;
const V4_FORWARDED_BASE: u32 = 0x0080_0000;
const V6_BASE: [u32; 3] = [0xfd69_6365_u32.to_be(), 0x7074_0000_u32.to_be(), 0];

/// The ranges, as constants for messages and settings.
#[derive(Clone, Copy, Debug)]
pub struct StandInRange;

impl StandInRange {
    /// The IPv4 range.
    pub const V4: &str = "127.128.0.0/9";
    /// The IPv4 range for forwarded connections.
    pub const V4_FORWARDED: &str = "0.128.0.0/15";
    /// The IPv6 range.
    pub const V6: &str = "fd69:6365:7074::/64";

    /// Whether `address` is in a range of its family.
    #[inline(always)]
    #[must_use]
    pub const fn contains(address: Address) -> bool {
        if let Some(v4) = address.v4() {
            let v4 = u32::from_be(v4);
            return v4 & !LOW_MASK == V4_BASE || v4 & !INDEX_MASK == V4_FORWARDED_BASE;
        }
        let words = address.words();
        (words[0] ^ V6_BASE[0]) | (words[1] ^ V6_BASE[1]) | (words[2] ^ V6_BASE[2]) == 0
    }

    /// The first address of the part that belongs to source `source`, in the family of `like`.
    #[must_use]
    pub const fn of_source(source: u8, like: Address) -> Address {
        in_family((source as u32) << INDEX_BITS, like)
    }
}

/// A stand-in: an address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandIn {
    /// The address, in one of the two ranges.
    pub address: Address,
    /// The port, in host byte order, never 0.
    pub port: u16,
}

impl StandIn {
    /// The stand-in of `number` with source `source`, in the family of `like`.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: StandInNumber, source: u8, like: Address) -> Self {
        let low = (source as u32) << INDEX_BITS | index(number);
        Self {
            address: in_family(low & LOW_MASK, like),
            port: port(number),
        }
    }

    /// The stand-in of `number` for `destination`.
    #[inline(always)]
    #[must_use]
    pub const fn of(number: StandInNumber, destination: &Destination) -> Self {
        if destination.interface == 0 {
            Self::new(number, destination.source, destination.address)
        } else {
            Self::for_forwarded(number, destination.address)
        }
    }

    /// The stand-in of `number` for a forwarded connection, in the family of `like`.
    #[inline(always)]
    #[must_use]
    pub const fn for_forwarded(number: StandInNumber, like: Address) -> Self {
        if !like.is_v4() {
            return Self::new(number, SOURCELESS, like);
        }
        Self {
            address: Address::from_v4((V4_FORWARDED_BASE | index(number)).to_be()),
            port: port(number),
        }
    }

    /// The slot of the stand-in in a pod's table.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self, netns: NetnsCookie) -> SlotKey {
        let low = u32::from_be(self.address.words()[3]);
        slot_key(netns, low as StandInNumber)
    }

    /// Whether this is the stand-in of `number`, with any source.
    #[inline(always)]
    #[must_use]
    pub const fn matches_number(self, number: StandInNumber) -> bool {
        self.matches_index(number) && self.port == port(number)
    }

    /// Whether the address is that of the stand-in of `number`, with any source.
    #[inline(always)]
    #[must_use]
    pub const fn matches_index(self, number: StandInNumber) -> bool {
        let low = u32::from_be(self.address.words()[3]);
        low & INDEX_MASK == index(number)
    }
}

/// The slot of `number` in the pod's table.
#[inline(always)]
#[must_use]
pub const fn slot_key(netns: NetnsCookie, number: StandInNumber) -> SlotKey {
    SlotKey::new(netns, (number & (SLOTS - 1)) as u32)
}

#[inline(always)]
const fn in_family(low: u32, like: Address) -> Address {
    if like.is_v4() {
        Address::from_v4((V4_BASE | low).to_be())
    } else {
        Address::from_words([V6_BASE[0], V6_BASE[1], V6_BASE[2], low.to_be()])
    }
}

#[inline(always)]
const fn index(number: StandInNumber) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the mask is below 32 bits")]
    {
        (number & INDEX_MASK as u64) as u32
    }
}

#[inline(always)]
const fn port(number: StandInNumber) -> u16 {
    ((number >> INDEX_BITS) % PORTS) as u16 + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V4: Address = Address::LOCALHOST_V4;
    const V6: Address = Address::LOCALHOST_V6;

    #[test]
    fn the_range_is_the_upper_half_of_loopback() {
        let first = StandInRange::of_source(0, V4);
        let last = StandIn::new(u64::MAX, SOURCELESS, V4).address;
        assert_eq!(first, Address::from_v4(0x7f80_0000_u32.to_be()));
        assert_eq!(last, Address::from_v4(0x7fff_ffff_u32.to_be()));
        assert!(!StandInRange::contains(Address::from_v4(
            0x7f7f_ffff_u32.to_be()
        )));
        assert!(!StandInRange::contains(Address::from_v4(
            0x8000_0000_u32.to_be()
        )));
    }

    proptest! {
        #[test]
        fn a_stand_in_encodes_its_number(
            number: u64, source in 0..=SOURCELESS, v6: bool
        ) {
            let stand_in = StandIn::new(number, source, if v6 { V6 } else { V4 });
            prop_assert!(StandInRange::contains(stand_in.address));
            prop_assert!(stand_in.port > 0);
            prop_assert!(stand_in.matches_number(number));
            prop_assert_eq!(stand_in.slot(7), slot_key(7, number));
        }

        #[test]
        fn a_forwarded_stand_in_encodes_its_number(number: u64, v6: bool) {
            let stand_in = StandIn::for_forwarded(number, if v6 { V6 } else { V4 });
            prop_assert!(StandInRange::contains(stand_in.address));
            prop_assert!(!stand_in.address.is_loopback());
            prop_assert!(stand_in.matches_number(number));
            prop_assert_eq!(stand_in.slot(7), slot_key(7, number));
        }

        #[test]
        fn numbers_of_the_same_stand_in_are_far_apart(
            number in 0..u64::MAX / 2, apart in 1_u64..(1 << 32)
        ) {
            prop_assert!(!StandIn::new(number, 0, V4).matches_number(number + apart));
        }
    }
}
