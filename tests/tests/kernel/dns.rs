//! DNS capture, beyond the comparison with iptables.

mod attaching;
mod resolvers;
