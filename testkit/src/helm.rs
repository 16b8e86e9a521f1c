//! The chart of `deploy/helm`, as Helm renders it.

use std::{collections::BTreeMap, env, process::Command};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{command::run, manifests::workspace};

const SCRIPT: &str = include_str!("helm.py");

/// The namespace of the release, and of the manifests of kustomize.
const NAMESPACE: &str = "interceptor-system";

/// The rendered chart.
pub struct Chart {
    /// The objects.
    pub objects: Vec<Value>,
    /// What Helm prints after an installation.
    pub notes: String,
}

/// What the script prints about one rendering.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rendering {
    Files(BTreeMap<String, String>),
    Error(String),
}

/// Renders the chart once for each of these values.
pub fn render(values: &[Value]) -> Result<Vec<Result<Chart>>> {
    let renderings: Vec<Rendering> = call("render", values)?;
    let charts = renderings.into_iter().map(|rendering| match rendering {
        Rendering::Files(files) => parsed(files),
        Rendering::Error(error) => bail!(error),
    });
    Ok(charts.collect())
}

/// The warnings and errors of `helm lint --strict` for each of these values.
pub fn lint(values: &[Value]) -> Result<Vec<Vec<String>>> {
    call("lint", values)
}

fn call<T: DeserializeOwned>(task: &str, values: &[Value]) -> Result<T> {
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]);
    // `cargo xtask` provides it.
    if let Some(dir) = env::var_os("HELM_SDK_DIR") {
        python.env("PYTHONPATH", dir);
    }
    let request = json!({
        "task": task,
        "chart": workspace().join("deploy/helm/interceptor"),
        "namespace": NAMESPACE,
        "values": values,
    });
    let output = run(&mut python, &request.to_string()).context(
        "cannot run Helm: set HELM_SDK_DIR, or install the Python package helm-python-sdk",
    )?;
    Ok(serde_json::from_str(&output)?)
}

fn parsed(mut files: BTreeMap<String, String>) -> Result<Chart> {
    let notes = files
        .remove("interceptor/templates/NOTES.txt")
        .context("no NOTES.txt")?;
    let mut objects = Vec::new();
    for (path, text) in files {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("{path}: {text}"))?;
        objects.extend(documents.into_iter().filter(|document| !document.is_null()));
    }
    Ok(Chart { objects, notes })
}
