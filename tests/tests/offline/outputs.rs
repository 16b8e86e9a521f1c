//! The whole output of every command that needs no captured pod: help, errors, and what `inject` and
//! `check-inject` print.

use std::{fs, path::Path, process::Command};

use interceptor_testkit::{command::bounded, interceptor, snapshot::Snapshots};
use tempfile::TempDir;

/// Commands that the list of commands does not show.
const HIDDEN: [&str; 2] = ["istio-clean-iptables", "man"];

/// The commands of `kubectl interceptor`.
const OF_KUBECTL: [&str; 5] = ["status", "observe", "explain", "top", "page"];

/// Wrong calls, and the names of their snapshots.
const WRONG: [(&str, &[&str]); 20] = [
    ("no-command", &[]),
    ("unknown-command", &["attached"]),
    ("attach-without-pod", &["attach"]),
    (
        "attach-no-cidr",
        &["attach", "--netns", "1", "-i", "no-cidr"],
    ),
    (
        "attach-no-port",
        &["attach", "--netns", "1", "-b", "80,http"],
    ),
    ("attach-no-netns", &["attach", "--netns", "/no/such/netns"]),
    ("run-no-netns", &["run", "--netns", "/no/such/netns"]),
    ("detach-no-netns", &["detach", "--netns", "/no/such/netns"]),
    ("detach-no-pod-name", &["detach", "web"]),
    ("status-no-netns", &["status", "--netns", "/no/such/netns"]),
    ("status-no-format", &["status", "-o", "xml"]),
    (
        "explain-no-address",
        &["explain", "--netns", "1", "--to", "example.org:80"],
    ),
    (
        "explain-no-port",
        &["explain", "--netns", "1", "--to", "10.2.0.9"],
    ),
    ("observe-no-filter", &["observe", "--verdict", "DROPPED"]),
    (
        "observe-last-and-first",
        &["observe", "--last", "1", "--first", "1"],
    ),
    ("inject-no-file", &["inject", "-f", "/no/such/file"]),
    ("check-inject-no-pod", &["check-inject"]),
    (
        "istio-iptables-no-mode",
        &["istio-iptables", "-n", "-m", "NONE"],
    ),
    ("istio-clean-iptables", &["istio-clean-iptables"]),
    ("cni-no-command", &["cni"]),
];

const MANIFEST: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
        - name: web
          image: example.org/web:1
          ports:
            - containerPort: 8080
---
apiVersion: v1
kind: Pod
metadata:
  name: host
spec:
  hostNetwork: true
  containers: [{name: host, image: 'example.org/host:1'}]
";

fn command(arguments: &[&str]) -> Command {
    let mut command = bounded(interceptor::binary());
    command.args(arguments).env_remove("CNI_COMMAND");
    command
}

#[test]
fn every_help_text_is_the_recorded_one() {
    let snapshots = Snapshots::new(&[]).expect("snapshots");
    let check = |name: &str, arguments: &[&str]| {
        let name = format!("help/{name}");
        let checked = snapshots.check(&name, &mut command(arguments));
        checked.expect("a run");
    };
    check("interceptor", &["--help"]);
    let commands = interceptor::commands().expect("commands");
    for name in commands.iter().map(String::as_str).chain(HIDDEN) {
        check(name, &[name, "--help"]);
    }
    for name in OF_KUBECTL {
        check(&format!("kubectl-{name}"), &["kubectl", name, "--help"]);
    }
}

#[test]
fn every_error_is_the_recorded_one() {
    let snapshots = Snapshots::new(&[]).expect("snapshots");
    for (name, arguments) in WRONG {
        let name = format!("errors/{name}");
        let checked = snapshots.check(&name, &mut command(arguments));
        checked.expect("a run");
    }
}

/// A workload, a pod that is skipped, and an object without pods.
#[test]
fn injection_prints_the_recorded_texts() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("app.yaml");
    fs::write(&file, MANIFEST).expect("a manifest");
    let own = [("[DIR]", directory.path().display().to_string())];
    let snapshots = Snapshots::new(&own).expect("snapshots");
    let labels = ["--namespace-labels", "istio-injection=enabled"];
    for (name, options) in [
        ("inject", &["inject"][..]),
        ("inject-diff", &["inject", "--diff"]),
        ("inject-patch", &["inject", "--patch"]),
        ("inject-why", &["inject", "--why"]),
        ("inject-why-json", &["inject", "--why=json"]),
        (
            "kube-inject",
            &["kube-inject", "--kubeconfig", "/no/such/file"],
        ),
    ] {
        check(&snapshots, name, options, &file);
    }
    for (name, format) in [("check-inject", "text"), ("check-inject-json", "json")] {
        let options = [&["check-inject", "-o", format][..], &labels].concat();
        check(&snapshots, name, &options, &file);
    }
}

fn check(snapshots: &Snapshots, name: &str, options: &[&str], file: &Path) {
    let mut command = command(options);
    command.arg("-f").arg(file);
    let checked = snapshots.check(&format!("injection/{name}"), &mut command);
    checked.expect("a run");
}
