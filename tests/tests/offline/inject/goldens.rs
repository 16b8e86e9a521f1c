//! A file of each kind of workload, and what it becomes with each option.
//!
//! `UPDATE_GOLDENS=1` writes the results into the files: read the difference before you commit it.

mod objects;

use std::{env, fs, path::PathBuf};

use super::{inject, stderr, stdout, succeeded, text};

/// What is injected.
#[derive(Clone, Copy, Debug)]
enum Sidecar {
    /// The built-in one with an Envoy configuration of one line, so that the results can be read.
    Short,
    /// The built-in one.
    Builtin,
    /// That of a template.
    Template,
}

use Sidecar::{Builtin, Short, Template};

/// An input, the name of its result, the sidecar and the arguments.
type Golden = (&'static str, &'static str, Sidecar, &'static [&'static str]);

const CLASSIC: &[&str] = &["--native-sidecar", "false"];
const AGENT: &[&str] = &["--interception", "agent"];
const INIT: &[&str] = &["--interception", "istio-init"];

const GOLDENS: [Golden; 30] = [
    ("pod.yaml", "pod.injected.yaml", Short, &[]),
    ("deployment.yaml", "deployment.injected.yaml", Short, &[]),
    ("deployment.yaml", "deployment.classic.yaml", Short, CLASSIC),
    (
        "deployment.yaml",
        "deployment.hold.yaml",
        Short,
        &["--hold"],
    ),
    (
        "deployment.yaml",
        "deployment.image.yaml",
        Short,
        &["--image", "registry.example/envoy:1"],
    ),
    (
        "deployment.yaml",
        // Its namespace is its own; that of the command line is for objects without one.
        "deployment.yaml",
        Short,
        &["--namespace-labels", "istio-injection=disabled"],
    ),
    (
        "pod.yaml",
        "pod.yaml",
        Short,
        &["--namespace", "kube-system"],
    ),
    ("daemonset.yaml", "daemonset.injected.yaml", Short, &[]),
    ("host-network.yaml", "host-network.yaml", Short, &[]),
    ("replicaset.yaml", "replicaset.injected.yaml", Short, &[]),
    ("statefulset.yaml", "statefulset.injected.yaml", Short, &[]),
    ("job.yaml", "job.injected.yaml", Short, &[]),
    ("job.yaml", "job.classic.yaml", Short, CLASSIC),
    ("cronjob.yaml", "cronjob.injected.yaml", Short, &[]),
    ("cronjob.yaml", "cronjob.template.yaml", Template, &[]),
    (
        "replicationcontroller.yaml",
        "replicationcontroller.injected.yaml",
        Short,
        &[],
    ),
    (
        "deploymentconfig.yaml",
        "deploymentconfig.injected.yaml",
        Short,
        &[],
    ),
    ("rollout.yaml", "rollout.injected.yaml", Short, &[]),
    ("list.yaml", "list.injected.yaml", Short, &[]),
    ("json.json", "json.injected.json", Short, &[]),
    // Kinds that have a pod template, but are not known.
    ("unknown.yaml", "unknown.yaml", Short, &[]),
    // The pod's own settings of the proxy.
    ("proxy.yaml", "proxy.injected.yaml", Short, &[]),
    ("proxy.yaml", "proxy.classic.yaml", Short, CLASSIC),
    ("proxy.yaml", "proxy.template.yaml", Template, CLASSIC),
    // Probes of all kinds.
    ("probes.yaml", "probes.injected.yaml", Builtin, &[]),
    ("probes.yaml", "probes.classic.yaml", Builtin, CLASSIC),
    ("probes.yaml", "probes.template.yaml", Template, &[]),
    // What redirects the traffic.
    ("pod.yaml", "pod.keep.yaml", Template, &[]),
    ("pod.yaml", "pod.agent.yaml", Template, AGENT),
    ("pod.yaml", "pod.istio-init.yaml", Template, INIT),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/offline/inject/goldens")
        .join(name)
}

fn injected(input: &str, sidecar: Sidecar, arguments: &[&str]) -> String {
    let files: &[(&str, &str)] = match sidecar {
        Short => &[("--bootstrap", "bootstrap.json")],
        Builtin => &[],
        Template => &[
            ("--injectConfigFile", "template-config.txt"),
            ("--valuesFile", "template-values.txt"),
        ],
    };
    let mut all = vec!["-f".to_owned(), text(&path(input)).to_owned()];
    for (flag, file) in files {
        all.extend([(*flag).to_owned(), text(&path(file)).to_owned()]);
    }
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let output = succeeded(inject(&[&all, arguments].concat()));
    stdout(&output).to_owned()
}

fn golden(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_kind_becomes_its_golden() {
    for (input, name, sidecar, arguments) in GOLDENS {
        let result = injected(input, sidecar, arguments);
        if env::var_os("UPDATE_GOLDENS").is_some() {
            fs::write(path(name), &result).unwrap();
        }
        assert_eq!(result, golden(name), "{input} {arguments:?}");
    }
}

#[test]
fn a_golden_is_injected_already() {
    for (_, name, sidecar, arguments) in GOLDENS {
        assert_eq!(injected(name, sidecar, arguments), golden(name), "{name}");
    }
}

/// An anchor cannot be edited in place, and what a record restores is written in block style.
const WRITTEN_AS_A_WHOLE: [&str; 1] = ["statefulset.yaml"];

#[test]
fn uninject_gives_the_original_text() {
    for (input, name, _, _) in GOLDENS {
        if WRITTEN_AS_A_WHOLE.contains(&input) {
            continue;
        }
        let output = inject(&["-f", text(&path(name)), "--uninject"]);
        assert_eq!(
            stdout(&output),
            golden(input),
            "{name}: {}",
            stderr(&output)
        );
    }
}
