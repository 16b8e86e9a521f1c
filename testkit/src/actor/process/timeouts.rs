//! The time limits of an actor's calls.

use std::time::Duration;

/// Time limit of receiving something that is expected.
pub(super) const RECEIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Time limit of connecting, perhaps to an address where no host replies: less than TCP waits
/// before it retransmits a SYN.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(900);
