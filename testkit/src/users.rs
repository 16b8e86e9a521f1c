//! The users of all tests.

use crate::actor::User;

/// The user of apps.
pub const APP: User = User::new(1000, 1000);
/// The user of proxies, Istio's.
pub const PROXY: User = User::new(1337, 1337);
/// A process with the proxy's UID alone.
pub const PROXY_UID: User = User::new(1337, 0);
/// A proxy in TPROXY mode: it needs `CAP_NET_ADMIN` to bind other addresses.
pub const TRANSPARENT_PROXY: User = User::new(0, 1337);
/// The user outside pods.
pub const ROOT: User = User::new(0, 0);
