//! What a rendering depends on besides the pod.

use super::{config::Config, proxy_config::ProxyConfig};
use crate::Subject;

/// What a rendering depends on besides the pod.
pub(super) struct Context<'a> {
    pub(super) config: &'a Config,
    pub(super) subject: &'a Subject,
    pub(super) proxy_config: &'a ProxyConfig,
}
