//! A file of each kind of workload, and what it becomes.
//!
//! `UPDATE_GOLDENS=1` writes the results into the files: read the difference before you commit it.

use std::{env, fs, path::PathBuf};

use super::{inject, stderr, stdout, succeeded, text};

/// The input, the name of the result, and the arguments.
const GOLDENS: [(&str, &str, &[&str]); 18] = [
    ("pod.yaml", "pod.injected.yaml", &[]),
    ("deployment.yaml", "deployment.injected.yaml", &[]),
    (
        "deployment.yaml",
        "deployment.classic.yaml",
        &["--native-sidecar", "false"],
    ),
    ("deployment.yaml", "deployment.hold.yaml", &["--hold"]),
    (
        "deployment.yaml",
        "deployment.image.yaml",
        &["--image", "registry.example/envoy:1"],
    ),
    (
        "deployment.yaml",
        // Its namespace is its own; that of the command line is for objects without one.
        "deployment.yaml",
        &["--namespace-labels", "istio-injection=disabled"],
    ),
    ("pod.yaml", "pod.yaml", &["--namespace", "kube-system"]),
    ("daemonset.yaml", "daemonset.injected.yaml", &[]),
    ("host-network.yaml", "host-network.yaml", &[]),
    ("replicaset.yaml", "replicaset.injected.yaml", &[]),
    ("statefulset.yaml", "statefulset.injected.yaml", &[]),
    ("job.yaml", "job.injected.yaml", &[]),
    ("cronjob.yaml", "cronjob.injected.yaml", &[]),
    (
        "replicationcontroller.yaml",
        "replicationcontroller.injected.yaml",
        &[],
    ),
    (
        "deploymentconfig.yaml",
        "deploymentconfig.injected.yaml",
        &[],
    ),
    ("rollout.yaml", "rollout.injected.yaml", &[]),
    ("list.yaml", "list.injected.yaml", &[]),
    ("json.json", "json.injected.json", &[]),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/offline/inject/goldens")
        .join(name)
}

fn injected(input: &str, arguments: &[&str]) -> String {
    let (input, bootstrap) = (path(input), path("bootstrap.json"));
    let first = ["-f", text(&input), "--bootstrap", text(&bootstrap)];
    let output = succeeded(inject(&[&first, arguments].concat()));
    stdout(&output).to_owned()
}

#[test]
fn every_kind_becomes_its_golden() {
    for (input, golden, arguments) in GOLDENS {
        let result = injected(input, arguments);
        if env::var_os("UPDATE_GOLDENS").is_some() {
            fs::write(path(golden), &result).unwrap();
        }
        let expected = fs::read_to_string(path(golden)).unwrap();
        assert_eq!(result, expected, "{input} {arguments:?}");
    }
}

#[test]
fn a_golden_is_injected_already() {
    for (_, golden, arguments) in GOLDENS {
        let expected = fs::read_to_string(path(golden)).unwrap();
        assert_eq!(injected(golden, arguments), expected, "{golden}");
    }
}

/// An anchor cannot be edited in place, and JSON is written with its own spaces.
const WRITTEN_AS_A_WHOLE: [&str; 1] = ["statefulset.yaml"];

#[test]
fn uninject_gives_the_original_text() {
    for (input, golden, _) in GOLDENS {
        if WRITTEN_AS_A_WHOLE.contains(&input) {
            continue;
        }
        let output = inject(&["-f", text(&path(golden)), "--uninject"]);
        let expected = fs::read_to_string(path(input)).unwrap();
        assert_eq!(stdout(&output), expected, "{golden}: {}", stderr(&output));
    }
}
