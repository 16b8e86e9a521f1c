//! `cargo xtask alerts`: writes what is derived from the plain rules and the dashboard.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::paths;

const RULES: &str = "deploy/monitoring/alerts.yaml";
const OBJECT: &str = "deploy/monitoring/prometheus-rule.yaml";

const DASHBOARD: &str = "deploy/monitoring/dashboard.json";
/// The chart's copies. Helm reads no file outside of a chart, and archives lose symbolic links.
const CHART: &str = "deploy/helm/interceptor/files";

const HEAD: &str = "\
# Written by `cargo xtask alerts` from alerts.yaml: change that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: interceptor
spec:
";

/// Writes the Prometheus operator's object, and the chart's copies.
pub(crate) fn run() -> Result<()> {
    let root = paths::root();
    let rules = fs::read_to_string(root.join(RULES)).context(RULES)?;
    fs::write(root.join(OBJECT), object(&rules)).context(OBJECT)?;
    for source in [RULES, DASHBOARD].map(Path::new) {
        let copy = Path::new(CHART).join(source.file_name().expect("a file's path"));
        fs::copy(root.join(source), root.join(&copy))
            .with_context(|| format!("cannot write {}", copy.display()))?;
    }
    Ok(())
}

/// The rules, without the comment before them, as the object's specification.
fn object(rules: &str) -> String {
    let rules = rules.lines().skip_while(|line| line.starts_with('#'));
    let indented = rules.map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("  {line}\n"),
    });
    HEAD.to_owned() + &indented.collect::<String>()
}
