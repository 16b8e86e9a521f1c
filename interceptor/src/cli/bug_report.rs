//! `interceptor bug-report`

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use jiff::Timestamp;

use crate::{
    arguments::socket_address,
    bug_report::{self, Report, Sources},
    host,
    observe::message::SOCKET,
    stdio::message,
};

/// Of the agent's default port.
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15028);

/// Only the user who made the report can read it.
const MODE: u32 = 0o600;

/// Write an archive with the state of this node, for a bug report
///
/// Contains versions, kernel features, captured pods with their settings, BPF objects and their
/// statistics, the node agent's health, metrics and last flows, CNI configurations, and what of this
/// could not be read. Contains no Secrets, tokens or environment variables, and of CNI
/// configurations only known fields. Names and addresses are in it, unless --redact is set: read the
/// archive before you share it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  interceptor bug-report --redact
  kubectl -n interceptor-system exec AGENT -- interceptor bug-report -o - > report.tar.gz")]
pub(super) struct BugReport {
    /// The archive, which must not exist; - for standard output [default:
    /// interceptor-bug-report-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace IP addresses, and names of pods, namespaces and hosts, by placeholders
    #[arg(long)]
    redact: bool,

    /// The agent's socket for observers
    #[arg(long, default_value = SOCKET, value_name = "FILE")]
    socket: PathBuf,

    /// The agent's address of metrics
    #[arg(long, default_value_t = HTTP, value_parser = socket_address, value_name = "IP:PORT")]
    http_address: SocketAddr,

    /// The container runtime's directory of CNI configurations
    #[arg(
        long,
        env = "CNI_CONF_DIR",
        default_value = "/etc/cni/net.d",
        value_name = "DIR"
    )]
    cni_conf_dir: PathBuf,
}

impl BugReport {
    fn is_to_stdout(&self) -> bool {
        self.output.as_deref().is_some_and(is_stdout)
    }

    pub(super) fn run(&self) -> Result<()> {
        host::check_root()?;
        ensure!(
            !(self.is_to_stdout() && io::stdout().is_terminal()),
            "standard output is a terminal: redirect it to a file, or name a file with --output"
        );
        let sources = Sources {
            socket: self.socket.clone(),
            http_address: self.http_address,
            cni_conf_dir: self.cni_conf_dir.clone(),
        };
        let mut report = Report::collect(&sources);
        if self.redact {
            report.redact();
        }
        let files = report.with_errors();
        let name = format!(
            "interceptor-bug-report-{}",
            Timestamp::now().strftime("%Y%m%dT%H%M%SZ")
        );
        let archive = bug_report::write(&name, &files)?;
        let path = self.output.clone();
        let path = path.unwrap_or_else(|| format!("{name}.tar.gz").into());
        write(&path, &archive)?;
        for file in &files {
            message!("  {:24} {}", file.name, file.about);
        }
        for error in &report.errors {
            message!("not collected: {error}");
        }
        message!(
            "interceptor: wrote {} ({} KiB): read it before you share it; {}",
            shown(&path),
            archive.len().div_ceil(1024),
            self.about_names()
        );
        Ok(())
    }

    const fn about_names(&self) -> &'static str {
        if self.redact {
            "addresses and names are replaced, as far as they are recognized"
        } else {
            "it has addresses and names; --redact replaces them"
        }
    }
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

fn shown(path: &Path) -> String {
    if is_stdout(path) {
        "to standard output".to_owned()
    } else {
        path.display().to_string()
    }
}

fn write(path: &Path, archive: &[u8]) -> Result<()> {
    if is_stdout(path) {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(archive).and_then(|()| stdout.flush());
        return match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write to standard output"),
        };
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE);
    let file = options.open(path);
    let mut file = file.with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(archive)
        .with_context(|| format!("cannot write {}", path.display()))
}
