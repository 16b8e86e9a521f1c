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
            message.contains(&format!("{path}/c.yml: line 1, column 4: ")),
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
    // Nothing is injected, and the name of the temporary file means nothing to the user.
    let expected = format!(
        "interceptor: cannot write {}: its directory does not exist\n",
        missing.display()
    );
    assert_eq!(stderr(&output), expected);
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
    assert_eq!(output.status.code(), Some(2));
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
    let url = Path::new("https://example.com/a.yaml");
    for path in [Path::new("/none/such.yaml"), empty.path(), url] {
        let output = inject(&["-f", text(path)]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(text(path)), "{}", stderr(&output));
    }
}

#[test]
fn a_refused_option_says_what_is_allowed() {
    for (arguments, expected) in [
        (&["--image", ""][..], "expected the reference of an image"),
        (&["--image", "a b"], "expected the reference of an image"),
        (&["-n", "Bad"], "expected at most 63 lower-case letters"),
        (&["-r", "1.29"], "expected at most 63 lower-case letters"),
        (
            &["--istioNamespace", "a b"],
            "expected at most 63 lower-case letters",
        ),
        (
            &["--injectConfigMapName", "A"],
            "expected the name of an object",
        ),
        (&["-o", "json"], "set ./json"),
        (&["-r", "canary"], "--namespace-labels"),
        (
            &["--from-cluster", "--validation", "keep"],
            "--interception",
        ),
        (&["-i", "mesh"], "--from-cluster"),
        (&["--injectConfigMapName", "injector"], "--from-cluster"),
        (&["--meshConfigMapName", "mesh"], "--from-cluster"),
        (&["-c", "kubeconfig"], "--from-cluster"),
        (&["--context", "kind"], "--from-cluster"),
        (&["--interception", "agent"], "--from-cluster"),
        (&["--hold", "--from-cluster"], "cannot be used with"),
        (
            &["--image", "envoy", "--valuesFile", "x"],
            "cannot be used with",
        ),
        (&["--uninject", "--image", "envoy"], "cannot be used with"),
        (&["--uninject", "--from-cluster"], "cannot be used with"),
        (&["--uninject", "-r", "canary"], "cannot be used with"),
        (
            &["--uninject", "--native-sidecar", "true"],
            "cannot be used with",
        ),
        (&["--uninject", "--valuesFile", "x"], "cannot be used with"),
        (
            &["--uninject", "--namespace-labels", "a=b"],
            "cannot be used with",
        ),
    ] {
        let output = inject_text(arguments, POD);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let message = stderr(&output);
        assert!(message.contains(expected), "{arguments:?}: {message}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn istios_template_requires_all_of_its_files() {
    for option in ["--injectConfigFile", "--valuesFile", "--meshConfigFile"] {
        let output = inject_text(&[option, "/none"], POD);
        assert_eq!(output.status.code(), Some(2), "{option}");
        for named in ["--injectConfigFile", "--valuesFile", "--meshConfigFile"] {
            assert!(stderr(&output).contains(named), "{}", stderr(&output));
        }
    }
}

#[test]
fn an_unusable_bootstrap_is_named() {
    let files = directory(&[("list", "[]"), ("text", "hello"), ("bad", "a: [")]);
    let path = |name: &str| files.path().join(name);
    for (name, problem) in [
        ("none", "cannot be read: No such file or directory"),
        ("list", "must be a mapping"),
        ("text", "must be a mapping"),
        ("bad", "is not valid YAML: line 1"),
    ] {
        let output = inject_text(&["--bootstrap", text(&path(name))], POD);
        assert_eq!(output.status.code(), Some(1));
        let start = format!(
            "interceptor: {}: Envoy's configuration (--bootstrap) {problem}",
            path(name).display()
        );
        assert!(stderr(&output).starts_with(&start), "{}", stderr(&output));
    }
}

#[test]
fn an_input_without_objects_is_named() {
    let files = directory(&[("a.yaml", ""), ("b.yaml", "# nothing\n")]);
    let [one, both] = [files.path().join("a.yaml"), files.path().to_owned()];
    let expected = format!("{} has no objects\n", one.display());
    let output = succeeded(inject(&["-f", text(&one)]));
    assert_eq!((stderr(&output), stdout(&output)), (&*expected, ""));
    let output = succeeded(inject(&["-f", text(&both)]));
    assert_eq!(stderr(&output), "the files have no objects\n");
    for (input, expected) in [
        ("hello\n", "standard input has no objects\n"),
        (
            "kind: Service\n",
            "standard input has no pod and no workload\n",
        ),
    ] {
        let output = succeeded(inject_text(&[], input));
        assert_eq!((stderr(&output), stdout(&output)), (expected, input));
    }
}

#[test]
fn an_unreadable_kubeconfig_is_named_once() {
    let files = directory(&[("a.yaml", POD), ("bad", "clusters: [")]);
    let manifest = files.path().join("a.yaml");
    let bad = files.path().join("bad");
    for (path, problem) in [
        (
            "/none",
            "cannot be read: No such file or directory (os error 2)\n",
        ),
        (text(&bad), "failed to parse kubeconfig YAML: "),
    ] {
        let output = inject(&["-f", text(&manifest), "--from-cluster", "-c", path]);
        assert_eq!(output.status.code(), Some(1));
        let message = stderr(&output);
        let expected = format!("--kubeconfig {path}: {problem}");
        assert!(message.contains(&expected), "{message}");
        assert_eq!(
            message.matches("kubeconfig").count(),
            expected.matches("kubeconfig").count()
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn why_says_what_a_second_injection_replaces() {
    let injected = succeeded(inject_text(&["--image", "envoy:1"], POD));
    let output = succeeded(inject_text(&["--why"], stdout(&injected)));
    let expected = "; replaces the sidecar of an earlier injection by this program, image envoy:1";
    assert!(stdout(&output).contains(expected), "{}", stdout(&output));
    let output = succeeded(inject_text(&["--why"], POD));
    assert!(!stdout(&output).contains("replaces"), "{}", stdout(&output));
}

#[test]
fn an_unreachable_api_server_is_named_once() {
    // Nothing listens on this port.
    let kubeconfig = "\
clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
users: [{name: a, user: {}}]
current-context: a
";
    let files = directory(&[("a.yaml", POD), ("kubeconfig", kubeconfig)]);
    let [manifest, kubeconfig] = ["a.yaml", "kubeconfig"].map(|name| files.path().join(name));
    let arguments = ["--from-cluster", "-c", text(&kubeconfig)];
    let output = inject(&[&["-f", text(&manifest)], &arguments[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    let expected = "cannot reach the API server at http://127.0.0.1:1/: ";
    assert!(message.contains(expected), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}
