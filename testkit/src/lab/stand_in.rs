//! The stand-in address of a connected socket.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use super::Lab;
use crate::actor::protocol::{Handle, Reply, Request};

/// The peer of an app's socket in the kernel's table: its stand-in.
#[must_use]
pub fn stand_in(lab: &Lab, socket: Handle) -> SocketAddr {
    let name = lab.app.must(&Request::LocalName { socket });
    let Reply::Name(name) = name.expect("a name") else {
        panic!("no name");
    };
    let table = if name.is_ipv4() { "tcp" } else { "tcp6" };
    let table = format!("/proc/{}/net/{table}", lab.app.pid());
    let table = fs::read_to_string(table).expect("sockets");
    let from = format!(":{:04X}", name.port());
    let remote = table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next()?.ends_with(&from).then_some(fields.next()?)
    });
    let stand_in = parse(remote.unwrap_or_else(|| panic!("no {from} in {table}")));
    let text = stand_in.to_string();
    assert!(
        text.starts_with("127.") || text.starts_with("[fd69:"),
        "{text}"
    );
    stand_in
}

/// Parses an address and a port of `/proc/net/tcp`: each word is in this machine's byte order.
fn parse(text: &str) -> SocketAddr {
    let (address, port) = text.split_once(':').expect("an address and a port");
    let hex = |text| u32::from_str_radix(text, 16).expect("a number");
    let words = address.as_bytes().chunks(8);
    let words = words.map(|word| hex(std::str::from_utf8(word).expect("hex")));
    let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
    let address = match bytes.first_chunk::<16>() {
        Some(v6) => IpAddr::from(*v6),
        None => IpAddr::from(*bytes.first_chunk::<4>().expect("an address")),
    };
    SocketAddr::new(address, u16::try_from(hex(port)).expect("a port"))
}
