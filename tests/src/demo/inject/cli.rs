//! `interceptor inject` on the demo's manifest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
};
use serde_json::Value;

const TEXT: &str = include_str!("web.yaml");
const FILE: &str = "web.yaml";

/// What must not be in the injected part.
const PRIVILEGED: [&str; 4] = ["istio-init", "NET_ADMIN", "NET_RAW", "runAsUser: 0"];

/// The lines of the difference that are shown, by what they contain.
const SHOWN: [&str; 10] = [
    "initContainers:",
    "- name: istio-proxy",
    "image:",
    "securityContext:",
    "capabilities:",
    "drop:",
    "- ALL",
    "readOnlyRootFilesystem: true",
    "runAsUser: 1337",
    "restartPolicy: Always",
];

/// The demo's manifest in a directory.
pub(crate) struct Manifest {
    directory: PathBuf,
}

/// The difference that the injection makes.
pub(crate) struct Diff {
    added: Vec<String>,
}

/// What the manifest has.
pub(crate) fn summary() -> String {
    let lines = TEXT.lines().count();
    format!("{lines} lines, two containers (a server and an app), nothing of a mesh")
}

/// The Deployment's pod template.
pub(crate) fn template() -> Result<Value> {
    let deployment: Value = serde_saphyr::from_str(TEXT)?;
    Ok(deployment["spec"]["template"].clone())
}

impl Manifest {
    pub(crate) fn write(directory: &Path) -> Result<Self> {
        fs::write(directory.join(FILE), TEXT)?;
        let directory = directory.to_owned();
        Ok(Self { directory })
    }

    /// The row about the Deployment: object, namespace, result and rule, then the reason.
    pub(crate) fn why(&self) -> Result<(String, String)> {
        let label = "--namespace-labels=istio-injection=enabled";
        let table = self.run(&["-f", FILE, "--why", label], "")?;
        let mut rows = table.lines();
        let row = rows.find(|row| row.contains("deployment/web"));
        let row = row.with_context(|| table.clone())?;
        ensure!(row.contains(" injected "), "{table}");
        let words: Vec<_> = row.split_whitespace().collect();
        let (columns, reason) = words.split_at_checked(4).with_context(|| table.clone())?;
        Ok((columns.join("  "), reason.join(" ")))
    }

    pub(crate) fn diff(&self) -> Result<Diff> {
        let result = self.try_run(&["-f", FILE, "--diff"], "")?;
        let diff = String::from_utf8(result.stdout)?;
        ensure!(result.status.code() == Some(1), "{}: {diff}", result.status);
        let changed = |sign| move |line: &&str| line.starts_with(sign) && !line.starts_with("---");
        let removed = diff.lines().find(changed('-'));
        ensure!(removed.is_none(), "{removed:?} is removed");
        let lines = diff.lines().filter_map(|line| line.strip_prefix('+'));
        let added: Vec<_> = lines
            .filter(|line| !line.starts_with("++"))
            .map(str::to_owned)
            .collect();
        for word in PRIVILEGED {
            let found = added.iter().find(|line| line.contains(word));
            ensure!(found.is_none(), "{found:?}");
        }
        Ok(Diff { added })
    }

    /// Injects, removes the sidecar again, and compares. Returns the manifest's length.
    pub(crate) fn uninjected(&self) -> Result<usize> {
        let injected = self.run(&["-f", FILE], "")?;
        ensure!(injected != TEXT, "the manifest is not injected");
        let back = self.run(&["--uninject"], &injected)?;
        ensure!(back == TEXT, "not equal:\n{back}");
        Ok(back.len())
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        let Output {
            status,
            stdout,
            stderr,
        } = self.try_run(arguments, input)?;
        let errors = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "{arguments:?}: {status}: {errors}");
        Ok(String::from_utf8(stdout)?)
    }

    fn try_run(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = bounded(interceptor::binary());
        command.current_dir(&self.directory);
        output(command.arg("inject").args(arguments), input)
    }
}

impl Diff {
    /// The lines that say what the sidecar may do.
    pub(crate) fn excerpt(&self) -> impl Iterator<Item = &str> {
        let is_shown = |line: &&String| SHOWN.iter().any(|shown| line.contains(shown));
        self.added.iter().filter(is_shown).map(String::as_str)
    }

    pub(crate) fn summary(&self) -> String {
        let count = self.added.len();
        format!("{count} lines added, none removed: no istio-init, no NET_ADMIN, no root")
    }
}
