//! Socket options with which an app routes packets itself, in the network of a pod of the tests.

use interceptor_testkit::actor::protocol::SocketOption;

/// An IPv4 source route through the pod's peer.
pub(crate) fn source_route() -> SocketOption {
    SocketOption::SourceRoute("10.1.0.1".parse().expect("an address"))
}

/// An IPv6 routing header through the pod's peer.
pub(crate) fn routing_header() -> SocketOption {
    SocketOption::RoutingHeader("fd00:1::1".parse().expect("an address"))
}

/// The pod's interface.
pub(crate) fn device() -> SocketOption {
    SocketOption::BindToDevice("eth0".to_owned())
}
