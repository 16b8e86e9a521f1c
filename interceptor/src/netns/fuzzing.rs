//! The properties of what netlink returns.

use std::ops::ControlFlow;

use netlink_packet_route::{
    RouteNetlinkMessage, address::AddressMessage, link::LinkMessage, route::RouteMessage,
    rule::RuleMessage,
};
use netlink_packet_sock_diag::inet::InetResponseHeader;
use rtnetlink::packet_core::{NetlinkMessage, Parseable as _};

use super::{
    addresses, interfaces, istio_rules, policy_rules, raw_netlink, routes, sock_diag::TcpSocket,
    tables, uplinks,
};

/// A datagram: no message of it makes its readers panic, and no more messages are read than fit into it.
pub fn netlink(data: &[u8]) {
    let mut count = 0;
    let _result = raw_netlink::read(data, &mut |body| {
        count += 1;
        read(body);
        ControlFlow::Continue(())
    });
    assert!(
        count <= data.len() / raw_netlink::HEADER,
        "{count} messages"
    );
    // As `rtnetlink` reads the rest.
    if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(data) {
        let _text = format!("{message:?}");
    }
}

fn read(body: &[u8]) {
    if let Ok(socket) = InetResponseHeader::parse(body) {
        let _socket = TcpSocket::from(socket);
    }
    let _destination = tables::destination(body);
    let _chain = istio_rules::nft::read_chain(body);
    if let Ok(route) = RouteMessage::parse(body) {
        let _lookup = routes::lookup_of(&route);
    }
    if let Ok(rule) = RuleMessage::parse(body) {
        let _destination = policy_rules::destination(&rule);
        let _cause = policy_rules::selects_more(&rule);
    }
    if let Ok(link) = LinkMessage::parse(body) {
        let _interface = interfaces::interface(&link);
        let _peer = uplinks::peer_of(&link);
    }
    if let Ok(address) = AddressMessage::parse(body) {
        let _address = addresses::address(&address);
    }
}
