//! `cargo xtask alerts`: writes the Prometheus operator's object from the plain rules.

use std::fs;

use anyhow::{Context as _, Result};

use crate::paths;

const RULES: &str = "deploy/monitoring/alerts.yaml";
const OBJECT: &str = "deploy/monitoring/prometheus-rule.yaml";

const HEAD: &str = "\
# Written by `cargo xtask alerts` from alerts.yaml: change that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: interceptor
spec:
";

/// Writes the object.
pub(crate) fn run() -> Result<()> {
    let root = paths::root();
    let rules = fs::read_to_string(root.join(RULES)).context(RULES)?;
    fs::write(root.join(OBJECT), object(&rules)).context(OBJECT)
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
