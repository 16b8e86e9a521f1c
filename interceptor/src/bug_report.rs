//! What a bug report contains, as an archive: the state of this node, without secrets.

mod agent;
mod archive;
mod cni;
mod dataplane;
mod kernel_log;
mod machine;
mod redact;

use std::{fmt::Write as _, path::PathBuf};

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

pub(crate) use self::archive::write;
use self::redact::Redaction;

/// Where the report is collected from.
pub(crate) struct Sources {
    /// The agent's socket for observers.
    pub socket: PathBuf,
    /// The agent's address of metrics.
    pub http_address: std::net::SocketAddr,
    /// The container runtime's directory of CNI configurations.
    pub cni_conf_dir: PathBuf,
}

/// A file of the archive.
#[derive(Clone, Debug)]
pub(crate) struct ReportFile {
    pub name: &'static str,
    pub about: &'static str,
    pub text: String,
}

/// The files, and what could not be collected.
pub(crate) struct Report {
    pub files: Vec<ReportFile>,
    pub errors: Vec<String>,
}

/// A part of the report: the file, what it contains, and how it is collected.
type Section = (&'static str, &'static str, fn(&Sources) -> Result<String>);

const SECTIONS: [Section; 14] = [
    (
        "versions.json",
        "releases, kernel, system, and kernel settings about BPF",
        |_| machine::versions(),
    ),
    (
        "check.json",
        "what interception requires, as `interceptor check -o json`",
        |_| machine::check(),
    ),
    (
        "pods.json",
        "captured pods, as `interceptor status -o json`",
        |_| dataplane::pods(),
    ),
    ("pins.txt", "pinned BPF objects", |_| dataplane::pins()),
    ("maps.json", "entries and capacity of the maps", |_| {
        dataplane::maps()
    }),
    (
        "programs.json",
        "loaded programs with verified instructions, machine code and runs",
        |_| dataplane::programs(),
    ),
    ("links.json", "attached programs", |_| dataplane::links()),
    (
        "agent/health.json",
        "whether the agent is ready",
        agent::health,
    ),
    (
        "agent/states.json",
        "all pods of the node, and why each is captured or not",
        agent::states,
    ),
    (
        "agent/flows.ndjson",
        "the last flows that were observed",
        agent::flows,
    ),
    ("agent/metrics.txt", "the agent's metrics", agent::metrics),
    (
        "cni/networks.json",
        "network configurations, without fields that are unknown here",
        cni::networks,
    ),
    (
        "cni/interceptor-cni.log",
        "the end of the plugin's log",
        cni::log,
    ),
    ("kernel.log", "lines of the kernel's log about BPF", |_| {
        kernel_log::about_bpf()
    }),
];

/// The file that says what could not be collected.
const ERRORS: &str = "errors.txt";

impl Report {
    /// Collects what can be collected.
    pub(crate) fn collect(sources: &Sources) -> Self {
        let (mut files, mut errors) = (Vec::new(), Vec::new());
        for (name, about, read) in SECTIONS {
            match read(sources) {
                Ok(text) => files.push(ReportFile { name, about, text }),
                Err(error) => errors.push(format!("{name}: {error:#}")),
            }
        }
        Self { files, errors }
    }

    /// Replaces addresses and names in all texts. An address or a name has the same placeholder in all
    /// files.
    pub(crate) fn redact(&mut self) {
        let mut redaction = Redaction::new(&machine::host_names());
        for file in &self.files {
            redaction.learn(file.name, &file.text);
        }
        let files = self.files.iter_mut().map(|file| &mut file.text);
        for text in files.chain(&mut self.errors) {
            *text = redaction.apply(text);
        }
    }

    /// The same with the list of what could not be collected.
    pub(crate) fn with_errors(&self) -> Vec<ReportFile> {
        let text = self.errors.iter().fold(String::new(), |mut text, error| {
            // Writing to a string does not fail.
            let _written = writeln!(text, "{error}");
            text
        });
        let about = "what could not be collected, and why";
        let errors = ReportFile {
            name: ERRORS,
            about,
            text,
        };
        self.files.iter().cloned().chain([errors]).collect()
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// A response in one line, for people to read.
fn indented(text: &str) -> Result<String> {
    json(&serde_json::from_str::<Value>(text)?)
}
