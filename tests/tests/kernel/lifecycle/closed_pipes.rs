//! Output without a reader, as in `interceptor status | head -1`: no panic, and the same exit
//! status.

use std::{
    fs,
    io::pipe,
    process::{Command, ExitStatus, Stdio},
};

use interceptor_testkit::{
    command::bounded,
    interceptor::{self, try_run},
    lab::{Caller, Lab, STOCK, all_captured, all_direct, wait_until},
    machine,
    spawn::spawn,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// A pipe without a reader.
fn closed() -> Stdio {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// The closed outputs of a command.
#[derive(Clone, Copy, Debug)]
enum Closed {
    Stdout,
    Stderr,
    Both,
}

/// Runs `command` with closed outputs. Returns its exit status, and its stderr where that was open.
fn run_closed(command: &mut Command, which: Closed) -> (ExitStatus, String) {
    let (stdout, stderr) = match which {
        Closed::Stdout => (closed(), Stdio::piped()),
        Closed::Stderr => (Stdio::piped(), closed()),
        Closed::Both => (closed(), closed()),
    };
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let child = command.spawn().expect("a process");
    let output = child.wait_with_output().expect("an exit status");
    (
        output.status,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// `interceptor ARGUMENTS`, without the test's environment variables.
fn command(arguments: &[&str]) -> Command {
    let mut command = bounded(interceptor::binary());
    command.args(arguments).env_remove("CNI_COMMAND");
    command
}

#[test]
fn every_command_exits_as_with_a_reader() {
    let lab = Lab::new().expect("a lab");
    lab.attach(STOCK).expect("attached");
    let netns = lab.pod.path().display().to_string();
    let cgroup = lab.cgroup.path().display().to_string();
    let dir = TempDir::new().expect("a directory");
    let pod = dir.path().join("pod.yaml");
    let manifest =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}]}\n";
    fs::write(&pod, manifest).expect("a manifest");
    let pod = pod.display().to_string();
    let dir = dir.path().display().to_string();
    let attach = ["attach", "--netns", &netns, "--cgroup", &cgroup];
    let attach = [&attach[..], STOCK].concat();
    let commands: &[&[&str]] = &[
        &["--version"],
        &["help"],
        &["help", "attach"],
        &["no-such-command"],
        &attach,
        &["attach", "--netns", &netns, "-i", "no-cidr"],
        &[
            "attach", "--netns", &netns, "-n", "-c", "eth9", "-m", "NONE",
        ],
        &["attach", "--netns", &netns, "-n", "--output", "json"],
        &["run", "--netns", &netns, "--cgroup", "/no/such/cgroup"],
        &["exec", "--netns", &netns, "--cgroup", &cgroup, "--", "true"],
        &["status", "--netns", &netns],
        &["status", "--netns", &netns, "-o", "json"],
        &["explain", "--netns", &netns, "--to", "10.2.0.9:80"],
        &[
            "explain",
            "--netns",
            &netns,
            "-o",
            "json",
            "--to",
            "10.2.0.9:80",
        ],
        &["observe", "--netns", "/no/such/netns"],
        &["top", "--count", "1"],
        &["top", "--count", "1", "-o", "json"],
        &["kubectl", "status", "a", "--kubeconfig", "/no/such/file"],
        &["completions", "bash"],
        &["check"],
        &["check", "-o", "json"],
        &["bug-report", "-o", "-", "--cni-conf-dir", &dir],
        &["bug-report", "-o", &dir],
        &["istio-iptables", "-n", "-m", "NONE"],
        &["istio-iptables", "--skip-rule-apply"],
        &["istio-clean-iptables"],
        &[
            "uninstall",
            "--node",
            "--cni-bin-dir",
            &dir,
            "--cni-conf-dir",
            &dir,
        ],
        &["agent", "--node-name", "n", "--kubeconfig", "/no/such/file"],
        &[
            "webhook",
            "--listen=127.0.0.1:0",
            "--http-address=127.0.0.1:0",
            "--kubeconfig=/no/such/file",
        ],
        &["inject", "-f", &pod],
        &["inject", "-f", &pod, "--diff"],
        &["inject", "-f", &pod, "--why"],
        &["kube-inject", "-f", &pod, "--kubeconfig", "/no/such/file"],
        &[
            "check-inject",
            "-f",
            &pod,
            "--namespace-labels",
            "istio-injection=enabled",
        ],
        &["check-inject", "a", "--kubeconfig", "/no/such/file"],
        &["cni"],
        &["detach", "--netns", "/no/such/netns"],
    ];
    for name in interceptor::commands().expect("commands") {
        let has_row = commands.iter().any(|arguments| arguments[0] == name);
        assert!(has_row, "{name} is not tested");
    }
    for arguments in commands {
        let open = try_run(*arguments).expect("a run").status;
        for which in [Closed::Stdout, Closed::Stderr, Closed::Both] {
            let (end, printed) = run_closed(&mut command(arguments), which);
            assert_eq!(end, open, "{arguments:?} with {which:?} closed: {printed}");
            assert!(!printed.contains("panicked"), "{arguments:?}: {printed}");
        }
    }
}

/// The changes of a command do not depend on a reader of its output.
#[test]
fn attach_and_detach_complete_without_a_reader() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let noted = [STOCK, &["--force-apply", "-t", "5"]].concat();
    let (end, _) = run_closed(&mut lab.attach_command(&noted), Closed::Both);
    assert!(end.success(), "{end}");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    let (end, _) = run_closed(&mut lab.command("detach"), Closed::Both);
    assert!(end.success(), "{end}");
    assert_eq!(lab.dial_all().expect("dials"), all_direct());
}

/// A log without a reader does not end a capture: only a signal does.
#[test]
fn run_continues_without_a_reader_of_its_log() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let mut run = Command::new(interceptor::binary());
    run.args(["run", "--log", "--netns"]).arg(lab.pod.path());
    run.arg("--cgroup").arg(lab.cgroup.path()).args(STOCK);
    run.stderr(closed());
    let mut run = spawn(run).expect("interceptor run");
    wait_until("capture", || {
        Ok(lab.dial(Caller::App, "10.2.0.9:80")? == "proxy:15001 for 10.2.0.9:80")
    })
    .expect("capture");
    for _ in 0..3 {
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
    }
    let id = Pid::from_raw(run.id().cast_signed());
    kill(id, Signal::SIGTERM).expect("a signal");
    let end = run.wait().expect("an exit status");
    assert!(end.success(), "{end}");
    assert_eq!(lab.dial_all().expect("dials"), all_direct());
}

/// A full disk is not a closed pipe: the requested output is missing.
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let _shared = machine::shared().expect("the machine");
    let full = fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let mut command = command(&["istio-iptables", "-n"]);
    let output = command.stdout(full).output().expect("a run");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    let words = ["standard output", "No space left"];
    assert!(words.iter().all(|word| printed.contains(word)), "{printed}");
}

/// The runtime must be notified that there is no result.
#[test]
fn the_plugin_fails_if_its_result_cannot_be_written() {
    let mut version = command(&["cni"]);
    version.env("CNI_COMMAND", "VERSION");
    let (end, printed) = run_closed(&mut version, Closed::Stdout);
    assert_eq!(end.code(), Some(1), "{printed}");
    assert!(printed.contains("standard output"), "{printed}");
    assert!(!printed.contains("panicked"), "{printed}");
    // DEL has no output, and must not prevent the deletion of a pod.
    let mut del = command(&["cni"]);
    del.env("CNI_COMMAND", "DEL");
    let (end, printed) = run_closed(&mut del, Closed::Both);
    assert!(end.success(), "{end}: {printed}");
}
