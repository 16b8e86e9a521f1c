//! IP packets with TCP segments, written and read byte by byte: forged ones, and those of a capture.

use std::net::{IpAddr, SocketAddr};

/// `IPPROTO_TCP`
pub const TCP: u8 = 6;

/// TCP's flag SYN.
pub const SYN: u8 = 0x02;
/// TCP's flag RST.
pub const RST: u8 = 0x04;
/// TCP's flag ACK.
pub const ACK: u8 = 0x10;

const TCP_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const MAC_ADDRESSES: usize = 12;

/// The headers of IPv6 that precede a transport header: hop-by-hop options, routing, destination
/// options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
/// IPv6's fragment header.
const FRAGMENT: u8 = 44;

/// A TCP segment without options.
#[must_use]
pub fn segment(from: SocketAddr, to: SocketAddr, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; TCP_HEADER];
    segment[..2].copy_from_slice(&from.port().to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    // A sequence number, five words of header, a window.
    segment[4..8].copy_from_slice(&1000_u32.to_be_bytes());
    segment[12..16].copy_from_slice(&[5 << 4, flags, 0xff, 0xff]);
    segment.extend(payload);
    let checksum = checksum(&[&pseudo_header(from.ip(), to.ip(), segment.len()), &segment]);
    segment[16..18].copy_from_slice(&checksum);
    segment
}

/// A SYN.
#[must_use]
pub fn syn(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    segment(from, to, SYN, &[])
}

/// The addresses and the length that a TCP checksum covers.
fn pseudo_header(from: IpAddr, to: IpAddr, length: usize) -> Vec<u8> {
    let length = u16::try_from(length).unwrap_or_default().to_be_bytes();
    // Zeros, the protocol and the length sum up equally in both families' forms.
    [&octets(from)[..], &octets(to), &[0, TCP], &length].concat()
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The Internet checksum of parts of even length, except the last.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!u16::try_from(folded).unwrap_or(u16::MAX)).to_be_bytes()
}

/// An IPv4 packet with options, whose length is a multiple of 4.
#[must_use]
pub fn ipv4(from: IpAddr, to: IpAddr, options: &[u8], payload: &[u8]) -> Vec<u8> {
    ipv4_fragment(from, to, options, payload, Fragment::WHOLE)
}

/// The position of a fragment in its packet.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// In units of 8 bytes.
    pub offset: u16,
    /// Whether others follow.
    pub more: bool,
}

impl Fragment {
    /// A packet that is not fragmented.
    pub const WHOLE: Self = Self {
        offset: 0,
        more: false,
    };
}

/// An IPv4 fragment.
#[must_use]
pub fn ipv4_fragment(
    from: IpAddr,
    to: IpAddr,
    options: &[u8],
    payload: &[u8],
    fragment: Fragment,
) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap_or_default();
    let total = 20 + options.len() + payload.len();
    let total = u16::try_from(total).unwrap_or_default().to_be_bytes();
    let position = (u16::from(fragment.more) << 13 | fragment.offset).to_be_bytes();
    let mut header = vec![0x40 | words, 0, total[0], total[1], 0, 77];
    header.extend(position);
    header.extend([64, TCP, 0, 0]);
    header.extend([octets(from), octets(to), options.to_vec()].concat());
    let checksum = checksum(&[&header]);
    header[10..12].copy_from_slice(&checksum);
    [&header, payload].concat()
}

/// An IPv6 packet. `next` is the type of the payload's first header.
#[must_use]
pub fn ipv6(from: IpAddr, to: IpAddr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or_default();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([octets(from), octets(to), payload.to_vec()].concat());
    packet
}

/// The IP packet of a TCP segment.
#[must_use]
pub fn ip(from: IpAddr, to: IpAddr, segment: &[u8]) -> Vec<u8> {
    if from.is_ipv4() {
        ipv4(from, to, &[], segment)
    } else {
        ipv6(from, to, TCP, segment)
    }
}

/// The Ethernet frame of an IP packet, with a VLAN's tag if given.
#[must_use]
pub fn frame(to: [u8; 6], from: [u8; 6], vlan: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    if let Some(vlan) = vlan {
        frame.extend(ETHERTYPE_VLAN);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(match packet.first().map(|byte| byte >> 4) {
        Some(4) => ETHERTYPE_IPV4,
        _ => ETHERTYPE_IPV6,
    });
    frame.extend(packet);
    frame
}

/// The transport part of a packet that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The protocol, such as [`TCP`].
    pub protocol: u8,
    /// Source and destination ports. `None` in a fragment that is not the first.
    pub ports: Option<(u16, u16)>,
    /// TCP's flags.
    pub flags: u8,
    /// Whether there are bytes after TCP's header.
    pub has_payload: bool,
}

/// Reads an Ethernet frame. `None` if it is no IP packet.
#[must_use]
pub fn read(frame: &[u8]) -> Option<Transport> {
    let tagged = frame.get(MAC_ADDRESSES..)?;
    let inner = match *tagged.first_chunk()? {
        ETHERTYPE_VLAN => tagged.get(4..)?,
        _ => tagged,
    };
    let packet = inner.get(2..)?;
    match *inner.first_chunk()? {
        ETHERTYPE_IPV4 => read_ipv4(packet),
        ETHERTYPE_IPV6 => read_ipv6(packet),
        _ => None,
    }
}

fn read_ipv4(packet: &[u8]) -> Option<Transport> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?));
    let position = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?);
    let offset = position & 0x1fff;
    let protocol = *packet.get(9)?;
    let payload = packet.get(header..total.min(packet.len()))?;
    Some(read_transport(protocol, payload, offset == 0))
}

fn read_ipv6(packet: &[u8]) -> Option<Transport> {
    let length = usize::from(u16::from_be_bytes(*packet.get(4..)?.first_chunk()?));
    let mut next = *packet.get(6)?;
    let end = packet.len().min(IPV6_HEADER + length);
    let mut rest = packet.get(IPV6_HEADER..end)?;
    let mut is_first = true;
    while next == FRAGMENT || EXTENSIONS.contains(&next) {
        let length = if next == FRAGMENT {
            is_first = u16::from_be_bytes(*rest.get(2..)?.first_chunk()?) >> 3 == 0;
            8
        } else {
            8 + usize::from(*rest.get(1)?) * 8
        };
        next = *rest.first()?;
        rest = rest.get(length..)?;
        if !is_first {
            break;
        }
    }
    Some(read_transport(next, rest, is_first))
}

fn read_transport(protocol: u8, payload: &[u8], is_first: bool) -> Transport {
    let word = |at: usize| {
        payload
            .get(at..)?
            .first_chunk()
            .map(|two| u16::from_be_bytes(*two))
    };
    let ports = if is_first { word(0).zip(word(2)) } else { None };
    let is_segment = protocol == TCP && ports.is_some();
    let header = payload.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    Transport {
        protocol,
        ports,
        flags: payload.get(13).copied().filter(|_| is_segment).unwrap_or(0),
        has_payload: !is_segment || payload.len() > header,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn addresses(v6: bool) -> (SocketAddr, SocketAddr) {
        let texts = if v6 {
            ["[fd00::1]:1", "[fd00::2]:80"]
        } else {
            ["10.0.0.1:1", "10.0.0.2:80"]
        };
        let [from, to] = texts.map(|text| text.parse().expect("an address"));
        (from, to)
    }

    #[test]
    fn what_is_written_is_read() {
        for v6 in [false, true] {
            let (from, to) = addresses(v6);
            for (flags, payload) in [(SYN, &b""[..]), (ACK, b"data")] {
                let packet = ip(from.ip(), to.ip(), &segment(from, to, flags, payload));
                for vlan in [None, Some(5)] {
                    let expected = Transport {
                        protocol: TCP,
                        ports: Some((1, 80)),
                        flags,
                        has_payload: !payload.is_empty(),
                    };
                    assert_eq!(read(&frame(MAC, MAC, vlan, &packet)), Some(expected));
                }
            }
        }
    }

    #[test]
    fn a_segment_behind_extension_headers_is_read() {
        let (from, to) = addresses(true);
        // Destination options: the next header, a length of 8 bytes, and padding.
        let payload = [&[TCP, 0, 1, 4, 0, 0, 0, 0][..], &syn(from, to)].concat();
        let packet = ipv6(from.ip(), to.ip(), 60, &payload);
        let transport = read(&frame(MAC, MAC, None, &packet)).expect("a packet");
        assert_eq!((transport.ports, transport.flags), (Some((1, 80)), SYN));
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let (from, to) = addresses(false);
        let last = Fragment {
            offset: 1,
            more: false,
        };
        let packet = ipv4_fragment(from.ip(), to.ip(), &[], &[0; 12], last);
        let transport = read(&frame(MAC, MAC, None, &packet)).expect("a packet");
        assert_eq!((transport.protocol, transport.ports), (TCP, None));
    }

    /// The sum over data and its checksum is zero.
    #[test]
    fn checksums_are_valid() {
        for v6 in [false, true] {
            let (from, to) = addresses(v6);
            let segment = segment(from, to, ACK, b"odd");
            let pseudo = pseudo_header(from.ip(), to.ip(), segment.len());
            assert_eq!(checksum(&[&pseudo, &segment]), [0, 0]);
        }
        let (from, to) = addresses(false);
        assert_eq!(checksum(&[&ipv4(from.ip(), to.ip(), &[], &[])]), [0, 0]);
    }
}
