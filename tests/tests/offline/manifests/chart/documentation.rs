//! docs/deploy.md lists the chart's values, and those of istio-cni.

use std::collections::BTreeMap;

use serde_json::Value;

use super::istio_cni::istios;
use crate::manifests::source;

const DOCUMENT: &str = "docs/deploy.md";

/// Below this key, as in Istio's charts.
const DEFAULTS: &str = "_internal_defaults_do_not_set";

/// The values below `prefix`, by their full names.
fn leaves(prefix: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        None => {
            found.insert(prefix.to_owned(), value.clone());
        }
        Some(fields) => {
            for (key, value) in fields {
                let name = match prefix {
                    "" => key.clone(),
                    _ => format!("{prefix}.{key}"),
                };
                leaves(&name, value, found);
            }
        }
    }
}

fn defaults(values: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    leaves("", &values[DEFAULTS], &mut found);
    found
}

/// As in the table: an empty string has no default.
fn shown(value: &Value) -> String {
    match value.as_str() {
        Some("") => String::new(),
        Some(text) => format!("`{text}`"),
        None => format!("`{value}`"),
    }
}

/// The lines of a section, up to the next one of the same or a higher level.
fn section(heading: &str) -> Vec<String> {
    let document = source(DOCUMENT);
    let lines = document.lines().skip_while(|line| *line != heading);
    let lines = lines
        .skip(1)
        .take_while(|line| !line.starts_with("## ") && !line.starts_with("### "));
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{heading} in {DOCUMENT}");
    lines
}

#[test]
fn every_value_of_the_chart_has_its_row_with_its_default() {
    let text = source("deploy/helm/interceptor/values.yaml");
    let mut expected = defaults(&serde_saphyr::from_str(&text).unwrap())
        .iter()
        .map(|(name, value)| (format!("`{name}`"), shown(value)))
        .collect::<Vec<_>>();
    let mut found = Vec::new();
    for row in section("### Values of the chart") {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        if let ["", name, default, meaning, ""] = cells[..]
            && name.starts_with('`')
        {
            assert!(!meaning.is_empty(), "{name}");
            found.push((name.to_owned(), default.to_owned()));
        }
    }
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "left, {DOCUMENT}; right, values.yaml");
}

/// By its own name, that of an object which has it, or by `ambient.*`.
#[test]
fn every_value_of_istio_cni_is_documented() {
    let rows = [
        section("### Values of the chart"),
        section("### From istio-cni's values"),
    ]
    .concat()
    .join("\n");
    for name in defaults(&istios()).keys() {
        let ends = name.match_indices('.').map(|(end, _)| end);
        let is_documented = ends.chain([name.len()]).any(|end| {
            let object = &name[..end];
            rows.contains(&format!("`{object}`")) || rows.contains(&format!("`{object}.*`"))
        });
        assert!(is_documented, "{name} in {DOCUMENT}");
    }
}
