//! Keeps the plugin installed.
//!
//! Woken by changes of the directories only. Another plugin that rewrites its list without ours is
//! answered at once; one that does so repeatedly insists on being alone: it is named, and not
//! fought.

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
    cni::files::{NotInstalled, atomic_file},
};

/// Passes are no closer together. Istio's agent throttles to the same.
const MIN_PASS_INTERVAL: Duration = Duration::from_secs(1);

/// More installations than this within [`CONTENTION_PERIOD`] mean that another program rewrites the file.
const MAX_REINSTALLS: usize = 5;

/// Contention is over when the file was not rewritten for this long.
const CONTENTION_PERIOD: Duration = Duration::from_mins(2);

/// Between passes, by the number of installations above [`MAX_REINSTALLS`].
const BACKOFF: Backoff = Backoff::new(MIN_PASS_INTERVAL, Duration::from_mins(1));

/// Interval after a failure that a change in the directories may not resolve.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Whether pods get our plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstallState {
    /// Nothing has been looked at yet.
    Starting,
    /// They do: it is in this file.
    Installed(PathBuf),
    /// They do not, or not always.
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
    /// A pass has ended. Has it had to install?
    fn passed(&mut self, now: Instant, installed: bool) {
        if installed {
            self.installations.push_back(now);
        }
        let recent = |time: &Instant| now.duration_since(*time) < CONTENTION_PERIOD;
        self.installations.retain(recent);
    }

    /// How many more there were than can be accidents, if any.
    fn contention(&self) -> Option<u32> {
        let count = self.installations.len().checked_sub(MAX_REINSTALLS + 1)?;
        Some(count.try_into().unwrap_or(u32::MAX))
    }

    /// How long to wait before the next.
    fn pause(&self) -> Duration {
        let excess = self.contention().map_or(0, |count| count.saturating_add(1));
        BACKOFF.delay(excess)
    }
}

/// Installs the plugin and keeps it so, for ever; `state` is told how it is, and `istio_cni` whether
/// it is there as well. Ends only if directories cannot be watched at all.
pub async fn keep(
    options: &InstallOptions,
    state: &watch::Sender<InstallState>,
    istio_cni: &watch::Sender<IstioCni>,
) -> Result<()> {
    let watch = Watch::new().context("cannot watch directories (inotify)")?;
    let mut monitor = RewriteMonitor::default();
    loop {
        // Before the pass: what changes during it is noticed.
        let watched = [&options.folders.cni_conf_dir, &options.folders.cni_bin_dir]
            .map(|path| watch.add(path));
        // Installing may take a while, and pods wait to be repaired.
        let looked = in_turn(options, istio_cni::look).await?;
        publish_istio_cni(istio_cni, looked.ok());
        let result = in_turn(options, once).await?;
        monitor.passed(Instant::now(), matches!(result, Ok(Installed::Now(_))));
        let now = judge(&result, &monitor, options);
        publish(state, now);
        sleep(monitor.pause()).await;
        let changed = watch.changed();
        if result.is_err() || watched.iter().any(Result::is_err) || monitor.contention().is_some() {
            // A directory that was not there is there after the pass, and is to be watched.
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

/// Held during a pass, which goes on when no process waits for it any more.
static PASS_LOCK: Mutex<()> = Mutex::const_new(());

/// Waits for a pass that is under way. Once [`keep`] has been dropped, none begins any more: what is
/// uninstalled then is not installed again.
pub async fn at_rest() {
    drop(PASS_LOCK.lock().await);
}

/// Files are slow, and their lock may be another's for a while: other tasks go on in the meantime.
async fn in_turn<T: Send + 'static>(
    options: &InstallOptions,
    work: fn(&InstallOptions) -> T,
) -> Result<T> {
    let options = options.clone();
    let turn = PASS_LOCK.lock().await;
    let pass = spawn_blocking(move || {
        let _turn = turn;
        work(&options)
    });
    pass.await.context("CNI plugin installation task cancelled")
}

fn judge(
    result: &Result<Installed, NotInstalled>,
    monitor: &RewriteMonitor,
    options: &InstallOptions,
) -> InstallState {
    match result {
        Err(error) => InstallState::Not {
            reason: error.to_string(),
        },
        Ok(installed) if monitor.contention().is_some() => InstallState::Not {
            reason: contested(installed.file(), &options.folders.cni_conf_dir),
        },
        Ok(installed) => InstallState::Installed(installed.file().to_owned()),
    }
}

/// Names the program that overwrites the file, if known, and what to do.
fn contested(file: &Path, dir: &Path) -> String {
    let who = if is_ciliums(file) || has_ciliums_traces(dir) {
        "Cilium removes other plugins: set `cni.exclusive=false` in its Helm values"
    } else {
        "another program on this node writes the file without interceptor-cni: configure that \
         program to keep chained plugins, or add interceptor-cni to its configuration"
    };
    let shown = file.display();
    format!("{shown} keeps being overwritten; pods started in between are not captured: {who}")
}

fn is_ciliums(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains("\"cilium-cni\""))
}

/// With `cni.exclusive`, Cilium renames others' files so.
fn has_ciliums_traces(dir: &Path) -> bool {
    let paths = atomic_file::list(dir).unwrap_or_default();
    let mut extensions = paths.iter().filter_map(|path| path.extension());
    extensions.any(|extension| extension == "cilium_bak")
}

/// Once for every change. What cannot be looked at is taken to be as it was; pods that istio-cni has
/// programmed are left to it in any case.
pub(super) fn publish_istio_cni(state: &watch::Sender<IstioCni>, looked: Option<IstioCni>) {
    state.send_if_modified(|before| {
        let unseen = match before {
            IstioCni::Unknown => IstioCni::Absent,
            IstioCni::Absent | IstioCni::In(_) => before.clone(),
        };
        let now = looked.unwrap_or(unseen);
        let is_new = *before != now;
        *before = now;
        is_new
    });
}

/// Once for every change.
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
    fn who_rewrites_without_end_is_given_way() {
        let mut monitor = RewriteMonitor::default();
        let now = Instant::now();
        for _ in 0..MAX_REINSTALLS {
            monitor.passed(now, true);
        }
        assert_eq!(monitor.pause(), MIN_PASS_INTERVAL);
        monitor.passed(now, true);
        assert_eq!(monitor.pause(), 2 * MIN_PASS_INTERVAL);
        for _ in 0..50 {
            monitor.passed(now, true);
        }
        assert_eq!(monitor.pause(), Duration::from_mins(1));
        monitor.passed(now + CONTENTION_PERIOD, false);
        assert_eq!(monitor.pause(), MIN_PASS_INTERVAL);
    }
}
