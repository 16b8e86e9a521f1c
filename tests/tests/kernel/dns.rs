//! DNS capture, beyond what can be compared with iptables.

mod attaching;
mod resolvers;
