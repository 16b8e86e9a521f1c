//! The ports of the built-in sidecar, which are Istio's.

/// The proxy's listener for outbound connections.
pub const OUTBOUND: u16 = 15001;
/// The proxy's listener for inbound connections.
pub const INBOUND: u16 = 15006;
/// Envoy's admin interface, on localhost.
pub const ADMIN: u16 = 15000;
/// Readiness, at `/healthz/ready`.
pub const HEALTH: u16 = 15021;
/// Probes of the app's TCP ports, at `/app-health/CONTAINER/PROBE`.
pub const PROBES: u16 = 15020;
/// Metrics of the proxy, at `/stats/prometheus`.
pub const STATS: u16 = 15090;
