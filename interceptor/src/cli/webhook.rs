//! `interceptor webhook`

use anyhow::Result;
use clap::Args;

use super::log;
use crate::{
    sidecar::SidecarOptions,
    webhook::{options::WebhookOptions, run},
};

/// Run the admission webhook: inject sidecars into pods as they are created
///
/// The API server calls the webhook over TLS, as a MutatingWebhookConfiguration says. The webhook
/// creates its own CA and certificate in a Secret, renews both, and sets caBundle; or it reads a
/// certificate from --tls-dir. It needs no privileges on the node.
///
/// It watches the configuration of the sidecar, in files or in ConfigMaps. A change applies to pods
/// that are created from then on; a configuration with an error is logged, and not used.
#[derive(Args)]
pub(super) struct Webhook {
    #[command(flatten)]
    options: WebhookOptions,

    #[command(flatten)]
    sidecar: SidecarOptions,
}

impl Webhook {
    pub(super) fn run(&self) -> Result<()> {
        run::run(&self.options, &self.sidecar)
    }

    /// Configures the log from the options.
    pub(super) fn log(&self) -> Result<()> {
        log::init(&self.options.log_level, self.options.log_as_json)
    }
}
