//! `cargo xtask dev`: the edit, build, reload loop.
//!
//! `interceptor run` of a new build replaces the programs of every captured pod in place. Its
//! predecessor is killed with SIGKILL, because a signal that it handles would detach the pod.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::{
    apt, build,
    command::{display, exec, say},
    paths,
};

mod changes;

use changes::Snapshot;

/// How often files and signals are polled. A scan of all sources takes a few milliseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The settings of a default Istio sidecar.
const DEFAULT_FLAGS: [&str; 6] = ["-b", "*", "-i", "*", "-d", "15090,15021,15020"];
/// The directory in which `ip netns` mounts network namespaces.
const NETNS_DIR: &str = "/run/netns";

#[derive(Args)]
pub(crate) struct Options {
    /// The pod's network namespace: the ID of a process in the pod, a name of `ip netns`, or a path
    #[arg(long, value_name = "PID|NAME|PATH")]
    netns: String,

    /// Build and attach again when a source file changes. If the build fails, the last programs stay
    /// attached
    #[arg(long)]
    watch: bool,

    /// Flags for `interceptor run` [default: those of a default Istio sidecar]
    #[arg(last = true)]
    flags: Vec<String>,
}

/// Builds and attaches; prints verdicts until SIGINT (Ctrl-C) or SIGTERM, then detaches.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        apt::is_root()?,
        "loading BPF programs requires root: run this as root"
    );
    let netns = resolve(&options.netns)?;
    let signals = Signals::handle()?;
    let mut session = Session {
        options,
        netns,
        binary: None,
        attached: None,
    };
    let result = session.run(&signals);
    session.end().context("cannot detach the pod").and(result)
}

/// The value for `interceptor run --netns`, which must exist.
fn resolve(netns: &str) -> Result<String> {
    if netns.parse::<u32>().is_ok() {
        ensure!(
            Path::new("/proc").join(netns).exists(),
            "--netns {netns}: no process has this ID"
        );
        return Ok(netns.to_owned());
    }
    let path = if netns.contains('/') {
        PathBuf::from(netns)
    } else {
        Path::new(NETNS_DIR).join(netns)
    };
    ensure!(
        path.exists(),
        "--netns {netns}: {} does not exist: give the ID of a process in the pod, a name that `ip \
         netns list` prints, or a path",
        path.display()
    );
    Ok(path.display().to_string())
}

/// Whether SIGINT or SIGTERM has been received. They are handled, not blocked, because child processes
/// inherit the mask, and Ctrl-C must terminate a running compiler.
struct Signals(Arc<AtomicBool>);

impl Signals {
    fn handle() -> Result<Self> {
        let received = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&received)).context("cannot handle signals")?;
        }
        Ok(Self(received))
    }

    fn received(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Session<'a> {
    options: &'a Options,
    netns: String,
    /// The last build that has tried to attach.
    binary: Option<PathBuf>,
    /// Its `interceptor run`.
    attached: Option<Child>,
}

impl Session<'_> {
    fn run(&mut self, signals: &Signals) -> Result<()> {
        loop {
            let built = Snapshot::of_sources()?;
            match self.build_and_attach() {
                Ok(()) => {}
                // Ctrl-C has terminated the compiler as well.
                Err(_) if signals.received() => return Ok(()),
                Err(error) if self.options.watch => {
                    let state = match self.attached {
                        Some(_) => "the last programs stay attached",
                        None => "the pod is not attached yet",
                    };
                    say(&format!("{error:#}: {state}; waiting for a change"));
                }
                Err(error) => return Err(error),
            }
            if !self.wait(signals, &built)? {
                return Ok(());
            }
        }
    }

    fn build_and_attach(&mut self) -> Result<()> {
        let start = Instant::now();
        let built = build::development()?;
        // The next build writes the original while this one runs.
        let binary = paths::target().join("dev/interceptor");
        install(&built, &binary)?;
        say(&format!("built in {:.1} s", start.elapsed().as_secs_f32()));
        self.attach(&binary)?;
        self.binary = Some(binary);
        Ok(())
    }

    /// Starts the new build's `interceptor run`, which replaces the programs in place.
    fn attach(&mut self, binary: &Path) -> Result<()> {
        if let Some(mut previous) = self.attached.take() {
            previous.kill().context("cannot kill the previous build")?;
            previous.wait()?;
        }
        let mut command = Command::new(binary);
        command.args(["run", "--log", "--netns", &self.netns]);
        if self.options.flags.is_empty() {
            command.args(DEFAULT_FLAGS);
        } else {
            command.args(&self.options.flags);
        }
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot run `{}`", display(&command)))?;
        self.attached = Some(child);
        Ok(())
    }

    /// Waits for a change of the sources; false on a signal, and if the command ends without
    /// `--watch`.
    fn wait(&mut self, signals: &Signals, built: &Snapshot) -> Result<bool> {
        loop {
            if signals.received() {
                return Ok(false);
            }
            if let Some(status) = self.exited()? {
                ensure!(self.options.watch, "`interceptor run` failed: {status}");
                say(&format!(
                    "`interceptor run` failed: {status}: the previous programs stay \
                     attached; waiting for a change"
                ));
            }
            if self.options.watch
                && let Some(file) = Snapshot::of_sources()?.change_since(built)
            {
                say(&format!("changed: {}", file.display()));
                return Ok(true);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// The status of the running command, once, if it has exited.
    fn exited(&mut self) -> Result<Option<std::process::ExitStatus>> {
        let Some(child) = &mut self.attached else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.attached = None;
        }
        Ok(status)
    }

    /// Detaches the pod if it was attached.
    fn end(&mut self) -> Result<()> {
        let Some(binary) = &self.binary else {
            return Ok(());
        };
        if let Some(mut child) = self.attached.take() {
            // After Ctrl-C the terminal has sent a signal as well; a second one changes nothing.
            kill(Pid::from_raw(child.id().try_into()?), Signal::SIGINT)?;
            if child.wait()?.success() {
                return Ok(());
            }
        }
        // The last build did not attach, or was terminated before it handled signals.
        exec(Command::new(binary).args(["detach", "--netns", &self.netns]))
    }
}

/// Replaces a file that may be running.
fn install(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    let new = to.with_extension("new");
    fs::copy(from, &new)
        .and_then(|_bytes| fs::rename(&new, to))
        .with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_network_namespace_is_an_error() {
        let error = |netns| resolve(netns).unwrap_err().to_string();
        assert!(
            error("4000000000").contains("no process"),
            "{}",
            error("4000000000")
        );
        assert!(error("no-such").contains("/run/netns/no-such does not exist"));
        assert!(error("/no/such").contains("/no/such does not exist"));
        assert_eq!(resolve("1").unwrap(), "1");
        assert_eq!(resolve("/proc/self/ns/net").unwrap(), "/proc/self/ns/net");
    }
}
