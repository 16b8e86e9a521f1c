//! A client of the Container Runtime Interface: gRPC over a unix socket.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use axum::http::uri::PathAndQuery;
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Request,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// Time limit of a call. A kubelet waits two minutes.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);

/// A connection, opened by the first call.
pub(super) struct Cri {
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    /// A client of the server at `socket`.
    pub(super) fn new(socket: &Path) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        let channel = {
            // It starts a task of the runtime's.
            let _inside = runtime.enter();
            endpoint.timeout(CALL_TIMEOUT).connect_lazy()
        };
        Ok(Self { runtime, channel })
    }

    /// Calls a method of `RuntimeService` and returns its response.
    pub(super) fn call<Q, A>(&self, method: &str, request: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call_at(&format!("/runtime.v1.RuntimeService/{method}"), request)
    }

    /// Calls a service's method, named by its path.
    pub(super) fn call_at<Q, A>(&self, path: &str, request: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let method = PathAndQuery::try_from(path)?;
        let response = self.runtime.block_on(async {
            let mut client = Grpc::new(self.channel.clone());
            client.ready().await?;
            let codec = ProstCodec::<Q, A>::default();
            let response = client.unary(Request::new(request), method, codec).await?;
            anyhow::Ok(response.into_inner())
        });
        response.with_context(|| path.to_owned())
    }
}
