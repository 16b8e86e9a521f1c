//! Running work that blocks outside the agent's own thread.

use anyhow::{Context as _, Result};
use tokio::task::spawn_blocking;

/// Runs `work` on a thread of its own. Started work completes even if the returned future is dropped.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work)
        .await
        .context("worker task cancelled")?
}
