//! How to reach the cluster.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use kube::{Client, Config};

use crate::api_server;

/// How to reach the cluster.
#[derive(Args, Clone, Debug)]
pub(crate) struct Access {
    /// Path of the kubeconfig file [default: $KUBECONFIG, ~/.kube/config, or in a pod its service
    /// account]
    #[arg(short = 'c', long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig file [default: its current context]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Access {
    /// The address of the API server, how to authenticate, and the default namespace.
    pub(crate) async fn config(&self) -> Result<Config> {
        api_server::config(self.kubeconfig.as_deref(), self.context.as_deref()).await
    }

    /// A client of the API server. No request is made.
    pub(crate) async fn client(&self) -> Result<Client> {
        api_server::client(self.config().await?)
    }
}
