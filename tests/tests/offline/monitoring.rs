//! Alerts and dashboard of `deploy/monitoring`, checked with Prometheus' own tool.

use std::{collections::BTreeSet, fs, path::PathBuf};

use interceptor_testkit::{
    command::{bounded, run},
    manifests::{only, render, workspace},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PAGE: &str = "docs/alerts.md";

fn file(name: &str) -> PathBuf {
    workspace().join("deploy/monitoring").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).expect("a file")
}

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&text(name)).expect("YAML")
}

fn promtool(arguments: &[&str], file: PathBuf) -> String {
    let mut promtool = bounded("promtool");
    promtool.args(arguments).arg(file);
    run(&mut promtool, "").expect("promtool, of Debian's package prometheus")
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn alerts() -> Vec<Value> {
    let rules = yaml("alerts.yaml");
    let groups = list(&rules["groups"]).iter();
    groups
        .flat_map(|group| list(&group["rules"]).clone())
        .collect()
}

fn name(alert: &Value) -> &str {
    alert["alert"].as_str().expect("a name")
}

#[test]
fn prometheus_accepts_the_rules() {
    let output = promtool(&["check", "rules"], file("alerts.yaml"));
    let all = format!("{} rules found", alerts().len());
    assert!(output.contains(&all), "{output}");
}

#[test]
fn the_rules_pass_their_unit_tests() {
    promtool(&["test", "rules"], file("alerts_test.yaml"));
}

/// A case that cannot fail would be one that expects nothing.
#[test]
fn every_alert_is_tested_to_fire_and_not_to() {
    let tests = yaml("alerts_test.yaml");
    let cases = || list(&tests["tests"]).iter();
    for alert in alerts() {
        let of_alert = format!(r#"alertname="{}""#, name(&alert));
        let expected = cases()
            .flat_map(|test| list(&test["promql_expr_test"]))
            .filter(|case| {
                case["expr"]
                    .as_str()
                    .is_some_and(|expr| expr.contains(&of_alert))
            })
            .map(|case| list(&case["exp_samples"]).is_empty());
        let expected: BTreeSet<_> = expected.collect();
        assert_eq!(expected, BTreeSet::from([false, true]), "{of_alert}");
    }
}

#[test]
fn both_forms_have_the_same_rules() {
    let rendered = render("monitoring").expect("objects");
    let object = only(&rendered, "PrometheusRule").expect("an object");
    let plain = yaml("alerts.yaml");
    assert_eq!(object["spec"], plain, "run `cargo xtask alerts`");
    assert_eq!(object["metadata"]["namespace"], "interceptor-system");
}

#[test]
fn every_alert_names_its_section_of_the_docs() {
    let page = fs::read_to_string(workspace().join(PAGE)).expect("the page");
    let sections = page.lines().filter_map(|line| line.strip_prefix("## "));
    let sections: Vec<_> = sections.collect();
    let alerts = alerts();
    for alert in &alerts {
        let (name, notes) = (name(alert), &alert["annotations"]);
        let severity = alert["labels"]["severity"].as_str();
        assert!(
            severity.is_some_and(|severity| ["critical", "warning", "info"].contains(&severity))
        );
        for note in ["summary", "description"] {
            assert!(
                notes[note].as_str().is_some_and(|text| !text.is_empty()),
                "{name}: {note}"
            );
        }
        let url = format!("{PAGE}#{}", name.to_lowercase());
        assert_eq!(notes["runbook_url"], json!(url));
    }
    let names: Vec<_> = alerts.iter().map(name).collect();
    assert_eq!(
        sections, names,
        "sections of {PAGE}, alerts, in the same order"
    );
}

/// The panels, without rows.
fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&text("dashboard.json")).expect("JSON");
    let panels = list(&dashboard["panels"]).iter();
    panels
        .filter(|panel| panel["type"] != "row")
        .cloned()
        .collect()
}

#[test]
fn prometheus_accepts_the_queries_of_the_dashboard() {
    let panels = panels();
    let targets = panels.iter().flat_map(|panel| list(&panel["targets"]));
    let rules: Vec<_> = targets
        .enumerate()
        .map(|(number, target)| {
            let query = target["expr"].as_str().expect("a query");
            let query = query
                .replace("$__rate_interval", "5m")
                .replace("$__range", "1h");
            json!({"record": format!("query:{number}"), "expr": query})
        })
        .collect();
    assert!(!rules.is_empty());
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("queries.yaml");
    // JSON is YAML.
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&file, groups.to_string()).expect("written");
    promtool(&["check", "rules"], file);
}

/// The dashboard can be imported into any Grafana.
#[test]
fn the_dashboard_names_no_data_source() {
    let dashboard: Value = serde_json::from_str(&text("dashboard.json")).expect("JSON");
    assert_eq!(
        (&dashboard["id"], &dashboard["uid"]),
        (&Value::Null, &Value::Null)
    );
    let variable = json!({"type": "prometheus", "uid": "${datasource}"});
    for panel in panels() {
        let sources = list(&panel["targets"])
            .iter()
            .map(|target| &target["datasource"]);
        for source in sources.chain([&panel["datasource"]]) {
            assert_eq!(source, &variable, "{}", panel["title"]);
        }
    }
}
