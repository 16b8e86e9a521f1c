//! The sandbox's connection to the outside, by [pasta](https://passt.top): it forwards through ordinary
//! sockets of the host, so neither the host's firewall nor its forwarding is changed.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Seek as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{resolv_conf::FORWARDER, sandbox::Sandbox};
use crate::netns::{addresses, netlink};

const PASTA: &str = "pasta";
const READY_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Connects the sandbox. It has the host's addresses then, on an interface with the host's name. The
/// process is one of the sandbox's cgroup, and is killed with the others.
pub(super) fn connect(sandbox: &Sandbox, published: &[u16]) -> Result<()> {
    let mut pasta = Pasta::start(sandbox, published)?;
    let procs = sandbox.cgroup.join("cgroup.procs");
    fs::write(&procs, pasta.process.id().to_string())
        .with_context(|| format!("cannot write {}", procs.display()))?;
    pasta.until_connected(sandbox)
}

struct Pasta {
    process: Child,
    /// Its messages, which matter only if it fails.
    messages: File,
}

impl Pasta {
    fn start(sandbox: &Sandbox, published: &[u16]) -> Result<Self> {
        let published: Vec<_> = published.iter().map(ToString::to_string).collect();
        let published = match published.len() {
            0 => "none".to_owned(),
            _ => published.join(","),
        };
        let messages = tempfile::tempfile().context("cannot make a temporary file")?;
        let mut command = Command::new(PASTA);
        command
            .args(["--foreground", "--quiet", "--config-net", "--no-map-gw"])
            .args(["--tcp-ports", &published, "--udp-ports", "none"])
            .args(["--tcp-ns", "none", "--udp-ns", "none"])
            .args(["--dns-forward", &FORWARDER.to_string()])
            // Another user may not enter the network namespace.
            .args(["--runas", "0", "--netns"])
            .arg(sandbox.netns.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(messages.try_clone()?)
            // Ctrl-C ends the command first, which may need the network for that.
            .process_group(0);
        let process = match command.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "pasta, which connects the sandbox to the outside, is not installed: install the \
                 package passt, or use --network none"
            ),
            started => started.context("cannot start pasta")?,
        };
        Ok(Self { process, messages })
    }

    fn until_connected(&mut self, sandbox: &Sandbox) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let addresses = sandbox
                .netns
                .run(|| netlink::run(async |handle| addresses::list(&handle).await))?;
            if addresses::first(&addresses).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.process.try_wait()? {
                bail!(
                    "pasta, which connects the sandbox to the outside, has exited: {status}: {}",
                    self.read_messages()?
                );
            }
            ensure!(
                Instant::now() < deadline,
                "pasta has not connected the sandbox after {} s",
                READY_TIMEOUT.as_secs()
            );
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn read_messages(&mut self) -> Result<String> {
        let mut text = String::new();
        self.messages.rewind()?;
        self.messages.read_to_string(&mut text)?;
        Ok(text.trim_end().replace('\n', "; "))
    }
}
