//! The differential test: the same connections, once behind Istio's iptables rules and once behind
//! Interceptor, must look the same to every observer, except for the list of permitted differences.

mod address_changes;
mod connecting;
mod dns;
mod dns_interfaces;
mod forwarded;
mod inbound;
mod known_differences;
mod listeners;
mod original_destination;
mod owners;
mod random;
mod refusals;
mod settings;
mod source_ports;
mod sources;
mod tproxy;
mod truth_table;
