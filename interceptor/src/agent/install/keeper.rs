//! Keeping the plugin installed.
//!
//! Woken by changes of the folders only. Another plugin that rewrites its list without ours is
//! answered at once; one that does so again and again insists on being alone: it is named, and not
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

use super::{
    InstallOptions, Installed, IstioCni, NotInstalled, files, neighbour, once, watch::Watch,
};

/// Passes are no closer together. Istio's agent throttles to the same.
const THROTTLE: Duration = Duration::from_secs(1);

/// So many installations within [`QUIET`] are no accident.
const ACCIDENTS: usize = 5;

/// When nothing has been rewritten for so long, peace is assumed.
const QUIET: Duration = Duration::from_mins(2);

/// The longest wait between two installations, while another rewrites the file.
const LONGEST: Duration = Duration::from_mins(1);

/// After a failure that no change of the folders may end.
const RETRY: Duration = Duration::from_secs(10);

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

/// How often the plugin had to be put back of late.
#[derive(Default)]
struct Peace {
    installations: VecDeque<Instant>,
}

impl Peace {
    /// A pass has ended. Has it had to install?
    fn passed(&mut self, now: Instant, installed: bool) {
        if installed {
            self.installations.push_back(now);
        }
        let recent = |time: &Instant| now.duration_since(*time) < QUIET;
        self.installations.retain(recent);
    }

    /// How many more there were than can be accidents, if any.
    fn broken(&self) -> Option<u32> {
        let count = self.installations.len().checked_sub(ACCIDENTS + 1)?;
        Some(count.try_into().unwrap_or(u32::MAX))
    }

    /// How long to wait before the next.
    fn pause(&self) -> Duration {
        self.broken().map_or(THROTTLE, |count| {
            THROTTLE
                .saturating_mul(2_u32.saturating_pow(count + 1))
                .min(LONGEST)
        })
    }
}

/// Installs the plugin and keeps it so, for ever; `state` is told how it is, and `istio_cni` whether
/// it is there as well. Ends only if folders cannot be watched at all.
pub async fn keep(
    options: &InstallOptions,
    state: &watch::Sender<InstallState>,
    istio_cni: &watch::Sender<IstioCni>,
) -> Result<()> {
    let watch = Watch::new().context("cannot watch directories (inotify)")?;
    let mut peace = Peace::default();
    loop {
        // Before the pass: what changes during it is noticed.
        let watched = [&options.folders.cni_conf_dir, &options.folders.cni_bin_dir]
            .map(|path| watch.add(path));
        // Installing may take a while, and pods wait to be repaired.
        let looked = in_turn(options, neighbour::look).await?;
        tell_of_istio_cni(istio_cni, looked.ok());
        let result = in_turn(options, once).await?;
        peace.passed(Instant::now(), matches!(result, Ok(Installed::Now(_))));
        let now = judge(&result, &peace, options);
        tell(state, now);
        sleep(peace.pause()).await;
        let changed = watch.changed();
        if result.is_err() || watched.iter().any(Result::is_err) || peace.broken().is_some() {
            // A folder that was not there is there after the pass, and is to be watched.
            let wait = if watched.iter().any(Result::is_err) {
                THROTTLE
            } else {
                RETRY
            };
            let _late = timeout(wait, changed).await;
        } else {
            changed
                .await
                .context("cannot watch directories (inotify)")?;
        }
    }
}

/// Held during a pass, which goes on when nobody waits for it any more.
static PASS: Mutex<()> = Mutex::const_new(());

/// Waits for a pass that is under way. Once [`keep`] has been dropped, none begins any more: what is
/// uninstalled then is not installed again.
pub async fn at_rest() {
    drop(PASS.lock().await);
}

/// Files are slow, and their lock may be another's for a while: other tasks go on meanwhile.
async fn in_turn<T: Send + 'static>(
    options: &InstallOptions,
    work: fn(&InstallOptions) -> T,
) -> Result<T> {
    let options = options.clone();
    let turn = PASS.lock().await;
    let pass = spawn_blocking(move || {
        let _turn = turn;
        work(&options)
    });
    pass.await.context("CNI plugin installation task cancelled")
}

fn judge(
    result: &Result<Installed, NotInstalled>,
    peace: &Peace,
    options: &InstallOptions,
) -> InstallState {
    match result {
        Err(error) => InstallState::Not {
            reason: error.to_string(),
        },
        Ok(installed) if peace.broken().is_some() => InstallState::Not {
            reason: contested(installed.file(), &options.folders.cni_conf_dir),
        },
        Ok(installed) => InstallState::Installed(installed.file().to_owned()),
    }
}

/// Names who insists on being alone, as far as that can be told, and the cure.
fn contested(file: &Path, folder: &Path) -> String {
    let who = if is_ciliums(file) || has_ciliums_traces(folder) {
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
fn has_ciliums_traces(folder: &Path) -> bool {
    let paths = files::list(folder).unwrap_or_default();
    let mut extensions = paths.iter().filter_map(|path| path.extension());
    extensions.any(|extension| extension == "cilium_bak")
}

/// Once for every change. What cannot be looked at is taken to be as it was; pods that istio-cni has
/// programmed are left to it in any case.
pub(super) fn tell_of_istio_cni(state: &watch::Sender<IstioCni>, looked: Option<IstioCni>) {
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
fn tell(state: &watch::Sender<InstallState>, now: InstallState) {
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
        let mut peace = Peace::default();
        let now = Instant::now();
        for _ in 0..ACCIDENTS {
            peace.passed(now, true);
        }
        assert_eq!(peace.pause(), THROTTLE);
        peace.passed(now, true);
        assert_eq!(peace.pause(), 2 * THROTTLE);
        for _ in 0..50 {
            peace.passed(now, true);
        }
        assert_eq!(peace.pause(), LONGEST);
        peace.passed(now + QUIET, false);
        assert_eq!(peace.pause(), THROTTLE);
    }
}
