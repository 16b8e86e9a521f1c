//! What is written where, messages and exit codes.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Stdio,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{inject, inject_text, interceptor, stderr, stdout, succeeded, text};

const POD: &str = "\
# A pod.
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: web
";

/// What a run without a cluster assumes.
const NATIVE: &str = "the sidecar is native, which requires Kubernetes 1.29: for older ones, set \
                      --native-sidecar false";

const BAD: &str = "\
apiVersion: v1
kind: Service
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: bad
spec:
  template:
    metadata:
      annotations:
        a: b
        sidecar.istio.io/nativeSidecar: maybe
    spec:
      containers: []
";

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn read(directory: &TempDir, name: &str) -> String {
    fs::read_to_string(directory.path().join(name)).unwrap()
}

#[test]
fn each_workload_has_a_line() {
    let skipped = POD
        .replace("spec:", "spec:\n  hostNetwork: true")
        .replace("web", "node");
    let output = succeeded(inject_text(&[], &format!("{POD}---\n{skipped}")));
    assert_eq!(
        stderr(&output),
        format!("pod/web injected\npod/node skipped: the pod uses the host network\n{NATIVE}\n")
    );
    let output = succeeded(inject_text(&["--native-sidecar=true"], POD));
    assert_eq!(stderr(&output), "pod/web injected\n");
}

#[test]
fn an_error_names_its_place_and_nothing_is_written() {
    let files = directory(&[
        ("a.yaml", POD),
        ("b.yaml", BAD),
        ("c.yml", "a: [\n"),
        ("d.txt", "x"),
    ]);
    let path = text(files.path());
    for arguments in [&["-f", path][..], &["-f", path, "--in-place"]] {
        let output = inject(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output), "");
        let message = stderr(&output);
        let place = format!(
            "interceptor: {path}/b.yaml: document 2, line 13: deployment/bad: annotation \
             sidecar.istio.io/nativeSidecar \"maybe\": "
        );
        assert!(message.contains(&place), "{message}");
        assert!(
            message.contains(&format!("{path}/c.yml: line ")),
            "{message}"
        );
        assert!(
            message.contains("nothing is written because of these 2 problems"),
            "{message}"
        );
    }
    assert_eq!(read(&files, "a.yaml"), POD);
}

#[test]
fn in_place_replaces_files_that_change() {
    let service = "kind: Service   # as it is\n";
    let files = directory(&[("a.yaml", POD), ("b.yaml", service)]);
    let file = files.path().join("a.yaml");
    let link = files.path().join("link.yaml");
    symlink("a.yaml", &link).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let unchanged = fs::metadata(files.path().join("b.yaml")).unwrap();
    let paths = ["-f", text(&link), "-f", text(files.path()), "--in-place"];
    let output = succeeded(inject(&paths));
    assert_eq!(stdout(&output), "");
    assert!(read(&files, "a.yaml").contains("name: istio-proxy"));
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(link.is_symlink());
    let same = fs::metadata(files.path().join("b.yaml")).unwrap();
    assert_eq!(same.modified().unwrap(), unchanged.modified().unwrap());
    assert_eq!(fs::read_dir(files.path()).unwrap().count(), 3);
    succeeded(inject(&["-f", text(&file), "--in-place", "--uninject"]));
    assert_eq!(read(&files, "a.yaml"), POD);
}

#[test]
fn a_directory_that_cannot_be_written_changes_nothing() {
    let files = directory(&[("a.yaml", POD)]);
    let missing = files.path().join("none/out.yaml");
    let output = inject(&[
        "-f",
        text(&files.path().join("a.yaml")),
        "-o",
        text(&missing),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("cannot write"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_output_file_may_be_the_input() {
    let files = directory(&[("a.yaml", POD)]);
    let file = files.path().join("a.yaml");
    succeeded(inject(&["-f", text(&file), "-o", text(&file)]));
    assert!(read(&files, "a.yaml").contains("istio-proxy"));
    let device = succeeded(inject(&["-f", text(&file), "-o", "/dev/stdout"]));
    assert!(stdout(&device).contains("istio-proxy"));
}

#[test]
fn several_files_are_one_stream() {
    let files = directory(&[
        ("a.yaml", "a: 1"),
        ("b.yaml", "---\nb: 1\n"),
        ("c.json", "{\"c\": 1}"),
    ]);
    let output = succeeded(inject(&["-f", text(files.path())]));
    assert_eq!(stdout(&output), "a: 1\n---\nb: 1\n---\n{\"c\": 1}");
}

#[test]
fn a_diff_has_the_exit_code_of_diff() {
    let different = inject_text(&["--diff"], POD);
    assert_eq!(different.status.code(), Some(1));
    assert!(stdout(&different).starts_with("--- standard input\n+++ standard input\n@@ "));
    let removed = stdout(&different)
        .lines()
        .filter(|line| line.starts_with('-'));
    assert_eq!(removed.count(), 1);
    let equal = inject_text(&["--diff"], "kind: Service\n");
    assert_eq!((equal.status.code(), stdout(&equal)), (Some(0), ""));
    for (arguments, input) in [(&["--diff"][..], BAD), (&["--diff", "-f", "/none"], "")] {
        assert_eq!(inject_text(arguments, input).status.code(), Some(2));
    }
}

#[test]
fn a_wrong_command_line_has_exit_code_2() {
    for arguments in [
        &["--diff", "--patch"][..],
        &["--why", "--uninject"],
        &["--in-place", "-o", "x"],
        &["--namespace-labels", "x"],
        &["--native-sidecar", "maybe"],
        &["--none"],
    ] {
        assert_eq!(inject(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let output = inject_text(&["--in-place"], POD);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--in-place requires files"));
}

#[test]
fn a_patch_changes_the_object_into_the_result() {
    let output = succeeded(inject_text(&["--patch"], POD));
    let patches: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(patches[0]["name"], "web");
    assert_eq!(patches[0]["document"], 1);
    let operations = patches[0]["patch"].as_array().unwrap();
    assert!(operations.iter().all(|operation| operation["op"] == "add"));
}

#[test]
fn why_names_the_rule() {
    let labelled = POD.replace(
        "name: web",
        "name: web\n  labels: {sidecar.istio.io/inject: \"false\"}",
    );
    for (input, arguments, rule) in [
        (POD, &[][..], "policy_enabled"),
        (POD, &["-n", "kube-system"], "system_namespace"),
        (POD, &["--namespace-labels", "x=y"], "no_label"),
        (
            POD,
            &["--namespace-labels", "istio-injection=disabled"],
            "namespace_disabled",
        ),
        (
            POD,
            &["--namespace-labels", "istio.io/rev=a"],
            "other_revision",
        ),
        (
            POD,
            &["--namespace-labels", "istio.io/rev=a", "-r", "a"],
            "policy_enabled",
        ),
        (&labelled, &[], "label_false"),
    ] {
        let output = inject_text(&[&["--why"], arguments].concat(), input);
        let table = stdout(&succeeded(output)).to_owned();
        let words: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((words[0], words[3]), ("pod/web", rule), "{table}");
    }
    let refused = inject_text(&["--why"], BAD);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stdout(&refused).contains("refused"), "{}", stdout(&refused));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let files = directory(&[("a.yaml", &format!("{POD}{}", "# comment\n".repeat(100_000)))]);
    let mut command = interceptor(&["inject", "-f", text(&files.path().join("a.yaml"))]);
    let mut process = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(process.stdout.take());
    let mut message = String::new();
    let mut stderr = process.stderr.take().unwrap();
    stderr.read_to_string(&mut message).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(0), "{message}");
    assert_eq!(message, format!("pod/web injected\n{NATIVE}\n"));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let empty = directory(&[("d.txt", "x")]);
    for path in [Path::new("/none/such.yaml"), empty.path()] {
        let output = inject(&["-f", text(path)]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(text(path)), "{}", stderr(&output));
    }
}
