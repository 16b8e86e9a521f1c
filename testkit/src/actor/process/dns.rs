//! A DNS server that has the same addresses for every name.

use std::{
    io::{self, Read as _, Write as _},
    net::UdpSocket,
    os::fd::{AsFd as _, BorrowedFd},
};

use socket2::{Socket, Type};

use super::protocol::{Reply, Zone};

const HEADER: usize = 12;
const TYPE_A: &[u8] = &[0, 1];
const TYPE_AAAA: &[u8] = &[0, 28];
const CLASS_IN: &[u8] = &[0, 1];
/// Response, recursion desired and available.
const FLAGS: &[u8] = &[0x81, 0x80];
/// The same, truncated.
const FLAGS_OF_TRUNCATED: &[u8] = &[0x83, 0x80];
/// A pointer to the name in the question, right after the header.
const NAME: &[u8] = &[0xc0, 12];
const TTL: &[u8] = &[0, 0, 0, 60];

/// The served sockets, and the number of queries.
#[derive(Default)]
pub(super) struct DnsServer {
    served: Vec<Served>,
    udp: usize,
    tcp: usize,
}

struct Served {
    socket: Socket,
    zone: Zone,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Datagrams,
    Listener,
    Connection,
}

impl DnsServer {
    /// Serves a UDP or a listening socket from now on.
    pub(super) fn add(&mut self, socket: Socket, zone: Zone) -> io::Result<()> {
        let kind = if socket.r#type()? == Type::DGRAM {
            Kind::Datagrams
        } else {
            Kind::Listener
        };
        self.served.push(Served { socket, zone, kind });
        Ok(())
    }

    /// How many queries there have been.
    pub(super) const fn queries(&self) -> Reply {
        Reply::Queries {
            udp: self.udp,
            tcp: self.tcp,
        }
    }

    /// The sockets to poll.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.served.iter().map(|served| served.socket.as_fd())
    }

    /// Serves what is ready, in the order of [`DnsServer::fds`]. An invalid query, or a client that
    /// has closed, gets no response.
    pub(super) fn serve(&mut self, ready: &[bool]) {
        let mut ready = ready.iter();
        let mut accepted = Vec::new();
        let (mut udp, mut tcp) = (0, 0);
        self.served.retain(|served| {
            if !ready.next().is_some_and(|ready| *ready) {
                return true;
            }
            match served.kind {
                Kind::Datagrams => udp += usize::from(reply_to_datagram(served).is_ok()),
                Kind::Listener => accepted.extend(accept(served)),
                Kind::Connection => {
                    let is_replied = reply_on_connection(served).is_ok();
                    tcp += usize::from(is_replied);
                    return is_replied;
                }
            }
            true
        });
        self.served.extend(accepted);
        self.udp += udp;
        self.tcp += tcp;
    }
}

fn accept(listener: &Served) -> io::Result<Served> {
    let (socket, _) = listener.socket.accept()?;
    let (zone, kind) = (listener.zone, Kind::Connection);
    Ok(Served { socket, zone, kind })
}

fn reply_to_datagram(served: &Served) -> io::Result<()> {
    let socket = UdpSocket::from(served.socket.try_clone()?);
    let mut query = [0; 1500];
    let (length, from) = socket.recv_from(&mut query)?;
    let reply = reply(&query[..length], served.zone, served.zone.is_long);
    let reply = reply.ok_or(io::ErrorKind::InvalidData)?;
    socket.send_to(&reply, from).map(drop)
}

/// Over TCP, each message follows its length.
fn reply_on_connection(served: &Served) -> io::Result<()> {
    let mut connection = &served.socket;
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut query = vec![0; u16::from_be_bytes(length).into()];
    connection.read_exact(&mut query)?;
    let reply = reply(&query, served.zone, false).ok_or(io::ErrorKind::InvalidData)?;
    let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
    connection.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat())
}

/// The response to a query with one question.
fn reply(query: &[u8], zone: Zone, is_truncated: bool) -> Option<Vec<u8>> {
    let question = question(query.get(HEADER..)?)?;
    let (kind, class) = question.get(question.len() - 4..)?.split_at(2);
    let data = match (kind, class) {
        _ if is_truncated => Vec::new(),
        (TYPE_A, CLASS_IN) => zone.v4.octets().to_vec(),
        (TYPE_AAAA, CLASS_IN) => zone.v6.octets().to_vec(),
        _ => Vec::new(),
    };
    let flags = if is_truncated {
        FLAGS_OF_TRUNCATED
    } else {
        FLAGS
    };
    let counts = [0, 1, 0, u8::from(!data.is_empty()), 0, 0, 0, 0];
    let mut reply = [query.get(..2)?, flags, &counts, question].concat();
    if !data.is_empty() {
        let length = u16::try_from(data.len()).ok()?.to_be_bytes();
        reply.extend([NAME, kind, CLASS_IN, TTL, &length, &data].concat());
    }
    Some(reply)
}

/// The first question: labels, an empty one, type and class.
fn question(rest: &[u8]) -> Option<&[u8]> {
    let mut end = 0;
    loop {
        let length = usize::from(*rest.get(end)?);
        end += 1 + length;
        if length == 0 {
            return rest.get(..end + 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An `A` query for `a.b`, with an EDNS record that the server ignores.
    const QUERY: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x01b\x00\x00\x01\x00\x01\x00\x00\x29";

    fn zone() -> Zone {
        Zone {
            v4: [192, 0, 2, 1].into(),
            v6: "2001:db8::1".parse().unwrap(),
            is_long: true,
        }
    }

    #[test]
    fn a_response_has_the_question_and_the_address() {
        let expected =
            b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x01b\x00\x00\x01\x00\x01\
            \xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01";
        assert_eq!(reply(QUERY, zone(), false).unwrap(), expected);
    }

    #[test]
    fn a_truncated_response_has_the_flag_and_no_address() {
        let expected =
            b"\x12\x34\x83\x80\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x01b\x00\x00\x01\x00\x01";
        assert_eq!(reply(QUERY, zone(), true).unwrap(), expected);
    }

    #[test]
    fn an_invalid_query_has_no_response() {
        for length in 0..QUERY.len() - 3 {
            assert_eq!(reply(&QUERY[..length], zone(), false), None);
        }
    }
}
