//! `interceptor webhook`

use anyhow::Result;
use clap::Args;

use super::log;
use crate::{
    sidecar::SidecarOptions,
    webhook::{
        options::WebhookOptions,
        run::{self, Setup},
    },
};

/// Run the admission webhook: inject sidecars into pods as they are created
///
/// The API server calls the webhook over TLS, as a MutatingWebhookConfiguration says. The webhook
/// creates its own CA and certificate in a Secret, renews both, and sets caBundle; or it reads a
/// certificate from --tls-dir. It needs no privileges on the node. It reads the configuration of the
/// sidecar when it starts: restart it to apply a change.
#[derive(Args)]
pub(super) struct Webhook {
    #[command(flatten)]
    options: WebhookOptions,

    #[command(flatten)]
    sidecar: SidecarOptions,
}

impl Webhook {
    pub(super) fn run(&self) -> Result<()> {
        let setup = Setup {
            config: self.sidecar.load()?,
            revision: self.sidecar.revision().to_owned(),
            kubeconfig: self.sidecar.kubeconfig().map(Into::into),
        };
        run::run(&self.options, setup)
    }

    /// Configures the log from the options.
    pub(super) fn log(&self) -> Result<()> {
        log::init(&self.options.log_level, self.options.log_as_json)
    }
}
