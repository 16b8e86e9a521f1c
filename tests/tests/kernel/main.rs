//! Captured pods in namespaces of their own, on the running kernel. Requires root.

mod bypass;
mod differential;
mod dns;
mod envoy;
mod exec;
mod isolation;
mod istio_iptables;
mod lifecycle;
mod load;
mod many_pods;
mod pods;
mod refusals;
mod routing_options;
mod strict;
mod transparent;
