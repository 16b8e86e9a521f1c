//! Each privilege and mount has its reason in a comment and in `docs/deploy.md`.

use interceptor_ebpf::{Reason, Refusal};

use super::{Rendered, rights::capabilities, source};

const DAEMONSET: &str = "deploy/base/daemonset.yaml";
const DOCUMENT: &str = "docs/deploy.md";

/// The line before the one that is `line`, in the manifest.
fn line_before(line: &str) -> String {
    let text = source(DAEMONSET);
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let at = lines.iter().position(|found| *found == line);
    lines[at.unwrap_or_else(|| panic!("no `{line}` in {DAEMONSET}")) - 1].to_owned()
}

/// The table row of the document about `name`.
fn row(name: &str) -> Option<String> {
    let document = source(DOCUMENT);
    let start = format!("| `{name}` |");
    document
        .lines()
        .find(|line| line.starts_with(&start))
        .map(str::to_owned)
}

#[test]
fn every_capability_has_its_comment_and_its_row() {
    let context = Rendered::base().agent().security_context.unwrap();
    for capability in capabilities(&context) {
        assert!(line_before(&format!("- {capability}")).starts_with("# "));
        assert!(row(&capability).is_some(), "{capability} in {DOCUMENT}");
    }
}

#[test]
fn every_mount_has_its_comment_and_its_row() {
    for mount in Rendered::base().agent().volume_mounts.unwrap() {
        let name = mount.name;
        assert!(
            line_before(&format!("- name: {name}")).starts_with("# "),
            "{name}"
        );
        assert!(row(&name).is_some(), "{name} in {DOCUMENT}");
    }
}

#[test]
fn every_value_has_its_row() {
    for value in Rendered::base().kind("ConfigMap") {
        for key in value["data"].as_object().unwrap().keys() {
            assert!(row(key).is_some(), "{key} in {DOCUMENT}");
        }
    }
}

#[test]
fn every_overlay_has_its_row() {
    for rendered in Rendered::platforms() {
        let name = rendered.dir.replace("overlays/", "");
        assert!(row(&name).is_some(), "{name} in {DOCUMENT}");
    }
}

#[test]
fn every_reason_of_the_metrics_has_its_row() {
    let reasons = Reason::ALL.map(|reason| (reason.name(), reason.words()));
    for (name, words) in reasons {
        let row = row(name).unwrap_or_else(|| panic!("{name} in {DOCUMENT}"));
        assert!(row.contains(words), "{row}: {words}");
    }
    for refusal in Refusal::ALL {
        let name = refusal.name();
        assert!(row(name).is_some(), "{name} in {DOCUMENT}");
    }
}
