//! Keeps the plugin installed.
//!
//! Passes follow changes of the directories. If another program rewrites the list without our plugin,
//! it is installed again at once; if this repeats, passes become rare and the program is reported.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{InstallOptions, Installed, IstioCni, istio_cni, once, watch::Watch};
use crate::{
    agent::backoff::Backoff,
    cni::files::{InstallError, atomic_file},
};

/// The minimum interval between passes, as in Istio's agent.
const MIN_PASS_INTERVAL: Duration = Duration::from_secs(1);

/// More installations than this within [`CONTENTION_PERIOD`] mean that another program rewrites the
/// file.
const MAX_REINSTALLS: usize = 5;

/// Contention is over when the file was not rewritten for this long.
const CONTENTION_PERIOD: Duration = Duration::from_mins(2);

/// Between passes, by the number of installations above [`MAX_REINSTALLS`].
const BACKOFF: Backoff = Backoff::new(MIN_PASS_INTERVAL, Duration::from_mins(1));

/// Interval after a failure that a change in the directories may not resolve.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Whether the plugin is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstallState {
    /// No pass has completed yet.
    Starting,
    /// It is installed in this file.
    Installed(PathBuf),
    /// It is not installed, or another program keeps removing it.
    Not {
        /// Why, and what to do.
        reason: String,
    },
}

/// Recent reinstallations of the plugin.
#[derive(Default)]
struct RewriteMonitor {
    installations: VecDeque<Instant>,
}

impl RewriteMonitor {
    /// Records the end of a pass, and whether it had to install the plugin.
    fn passed(&mut self, now: Instant, installed: bool) {
        if installed {
            self.installations.push_back(now);
        }
        let recent = |time: &Instant| now.duration_since(*time) < CONTENTION_PERIOD;
        self.installations.retain(recent);
    }

    /// The number of recent installations above [`MAX_REINSTALLS`], if there are more, minus one.
    fn contention(&self) -> Option<u32> {
        let count = self.installations.len().checked_sub(MAX_REINSTALLS + 1)?;
        Some(count.try_into().unwrap_or(u32::MAX))
    }

    /// The delay before the next pass.
    fn delay(&self) -> Duration {
        let excess = self.contention().map_or(0, |count| count.saturating_add(1));
        BACKOFF.delay(excess)
    }
}

/// Keeps the plugin installed. Publishes the state to `state`, and whether istio-cni is installed to
/// `istio_cni`. Returns only if directories cannot be watched at all.
pub async fn keep(
    options: &InstallOptions,
    state: &watch::Sender<InstallState>,
    istio_cni: &watch::Sender<IstioCni>,
) -> Result<()> {
    let watch = Watch::new().context("cannot watch directories (inotify)")?;
    let mut monitor = RewriteMonitor::default();
    loop {
        // Before the pass, so that changes during the pass wake the next one.
        let watched =
            [&options.dirs.cni_conf_dir, &options.dirs.cni_bin_dir].map(|path| watch.add(path));
        // Before the installation, which may take long: running pods wait for this result.
        let detected = in_turn(options, istio_cni::detect).await?;
        publish_istio_cni(istio_cni, detected.ok());
        let result = in_turn(options, once).await?;
        monitor.passed(Instant::now(), matches!(result, Ok(Installed::Now(_))));
        let now = judge(&result, &monitor, options);
        publish(state, now);
        sleep(monitor.delay()).await;
        let changed = watch.changed();
        if result.is_err() || watched.iter().any(Result::is_err) || monitor.contention().is_some() {
            // The pass has created the missing directory: it can be watched now.
            let wait = if watched.iter().any(Result::is_err) {
                MIN_PASS_INTERVAL
            } else {
                RETRY_INTERVAL
            };
            let _late = timeout(wait, changed).await;
        } else {
            changed
                .await
                .context("cannot watch directories (inotify)")?;
        }
    }
}

/// Held during a pass, which completes even if its future is dropped.
static PASS_LOCK: Mutex<()> = Mutex::const_new(());

/// Waits for a pass in progress. After [`keep`] was dropped, no other pass starts, so an uninstallation
/// after this is not reverted.
pub async fn at_rest() {
    drop(PASS_LOCK.lock().await);
}

/// Runs file operations on a thread: another process may hold the directory's lock for long.
async fn in_turn<T: Send + 'static>(
    options: &InstallOptions,
    work: fn(&InstallOptions) -> T,
) -> Result<T> {
    let options = options.clone();
    let guard = PASS_LOCK.lock().await;
    let pass = spawn_blocking(move || {
        let _guard = guard;
        work(&options)
    });
    pass.await.context("CNI plugin installation task cancelled")
}

fn judge(
    result: &Result<Installed, InstallError>,
    monitor: &RewriteMonitor,
    options: &InstallOptions,
) -> InstallState {
    match result {
        Err(error) => InstallState::Not {
            reason: error.to_string(),
        },
        Ok(installed) if monitor.contention().is_some() => InstallState::Not {
            reason: contested(installed.file(), &options.dirs.cni_conf_dir),
        },
        Ok(installed) => InstallState::Installed(installed.file().to_owned()),
    }
}

/// Names the program that overwrites the file, if known, and what to do.
fn contested(file: &Path, dir: &Path) -> String {
    let who = if is_from_cilium(file) || has_cilium_backups(dir) {
        "Cilium removes other plugins: set `cni.exclusive=false` in its Helm values"
    } else {
        "another program on this node writes the file without interceptor-cni: configure that \
         program to keep chained plugins, or add interceptor-cni to its configuration"
    };
    let shown = file.display();
    format!("{shown} keeps being overwritten; pods started in between are not captured: {who}")
}

fn is_from_cilium(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains("\"cilium-cni\""))
}

/// With `cni.exclusive`, Cilium renames other files to this extension.
fn has_cilium_backups(dir: &Path) -> bool {
    let paths = atomic_file::list(dir).unwrap_or_default();
    let mut extensions = paths.iter().filter_map(|path| path.extension());
    extensions.any(|extension| extension == "cilium_bak")
}

/// Publishes each change. If the detection failed, the state stays; pods that istio-cni has redirected
/// are skipped in any case.
pub(super) fn publish_istio_cni(state: &watch::Sender<IstioCni>, detected: Option<IstioCni>) {
    state.send_if_modified(|before| {
        let default = match before {
            IstioCni::Unknown => IstioCni::Absent,
            IstioCni::Absent | IstioCni::In(_) => before.clone(),
        };
        let now = detected.unwrap_or(default);
        let is_new = *before != now;
        *before = now;
        is_new
    });
}

/// Publishes and logs each change.
fn publish(state: &watch::Sender<InstallState>, now: InstallState) {
    state.send_if_modified(|before| {
        if *before == now {
            return false;
        }
        match &now {
            InstallState::Installed(file) => info!("CNI plugin installed in {}", file.display()),
            InstallState::Not { reason } => warn!("CNI plugin not installed: {reason}"),
            InstallState::Starting => {}
        }
        *before = now;
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_rewrites_back_off() {
        let mut monitor = RewriteMonitor::default();
        let now = Instant::now();
        for _ in 0..MAX_REINSTALLS {
            monitor.passed(now, true);
        }
        assert_eq!(monitor.delay(), MIN_PASS_INTERVAL);
        monitor.passed(now, true);
        assert_eq!(monitor.delay(), 2 * MIN_PASS_INTERVAL);
        for _ in 0..50 {
            monitor.passed(now, true);
        }
        assert_eq!(monitor.delay(), Duration::from_mins(1));
        monitor.passed(now + CONTENTION_PERIOD, false);
        assert_eq!(monitor.delay(), MIN_PASS_INTERVAL);
    }
}
