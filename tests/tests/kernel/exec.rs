//! `interceptor exec`: a command behind a proxy, in a sandbox that does not outlive it.
//!
//! ```text
//!  host                                            peer
//!  interceptor exec, the sandbox                   remote:80, client
//!  eth0 10.1.0.2, fd00:1::2 ────────────────────── eth0 10.1.0.1, fd00:1::1
//!                                                  lo   10.2.0.9, fd00:2::9
//! ```

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use interceptor_testkit::{
    actor::Actor,
    bpf::pins,
    cgroup::Cgroup,
    command::own_binary,
    interceptor,
    kept::{self, SharedLoaded},
    lab::{cookie, cookie_at, wait_until},
    netns::Netns,
    sidecar::{
        Attempt, ProxyReport, ServerResponse,
        launch::{LaunchContext, Process},
        send_http,
    },
    spawn::spawn,
    topology,
    users::{PROXY, ROOT},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const REMOTE: &str = "10.2.0.9:80";

/// A machine with a remote server.
struct Host {
    netns: Netns,
    cgroup: Cgroup,
    _remote: Process,
    client: Actor,
    _peer: Netns,
    _shared: SharedLoaded,
    /// The IDs of the processes of `exec`.
    started: RefCell<Vec<u32>>,
}

impl Host {
    fn new() -> Self {
        let shared = kept::shared().expect("the machine");
        let cgroup = Cgroup::new().expect("a cgroup");
        let child = |name: &str| cgroup.child(name).expect("a cgroup");
        let netns = Netns::new("host", Some(&child("host"))).expect("a namespace");
        let peer = Netns::new("peer", Some(&child("peer"))).expect("a namespace");
        topology::connect(&netns, &peer).expect("a network");
        let context = LaunchContext {
            netns: &peer,
            cgroup: &child("remote"),
            user: ROOT,
        };
        let arguments = ["server", "remote", "80"].map(str::to_owned);
        let mut remote = Process::start(context, &sidecar(), &arguments).expect("a server");
        remote.await_listeners(&peer, &[80], 1).expect("a listener");
        let client = Actor::start("client", ROOT, peer.namespace(), Some(&child("client")));
        let client = client.expect("a client");
        child("exec");
        Self {
            netns,
            cgroup,
            _remote: remote,
            client,
            _peer: peer,
            _shared: shared,
            started: RefCell::default(),
        }
    }

    /// `interceptor exec` with its output piped.
    fn start(&self, arguments: &[&str]) -> Child {
        let context = LaunchContext {
            netns: &self.netns,
            cgroup: &self.exec_cgroup(),
            user: ROOT,
        };
        let cgroup = self.cgroup.path().to_str().expect("UTF-8");
        let all = [&["exec", "--cgroup", cgroup], arguments].concat();
        let all: Vec<_> = all.into_iter().map(str::to_owned).collect();
        let binary = interceptor::binary();
        let mut command = context.command(&binary, &all).expect("a binary");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let exec = spawn(command).expect("interceptor exec");
        self.started.borrow_mut().push(exec.id());
        exec
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let child = self.start(arguments);
        child.wait_with_output().expect("output")
    }

    fn exec_cgroup(&self) -> PathBuf {
        self.cgroup.path().join("exec")
    }

    /// What is left: processes, which are in the cgroup of `exec`, cgroups and network namespaces.
    fn left(&self) -> Vec<String> {
        let processes = fs::read_to_string(self.exec_cgroup().join("cgroup.procs"));
        let processes = processes.expect("processes");
        let started = self.started.borrow();
        let names = started.iter().map(|id| format!("interceptor-exec-{id}"));
        let paths = names.flat_map(|name| {
            let file = format!("/run/{name}.resolv.conf");
            [self.exec_cgroup().join(&name), netns_of(&name), file.into()]
        });
        paths
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .chain(processes.lines().map(str::to_owned))
            .collect()
    }

    #[track_caller]
    fn expect_nothing_left(&self) {
        wait_until("the end of the sandbox", || Ok(self.left().is_empty()))
            .unwrap_or_else(|error| panic!("{error:#}: {:?}", self.left()));
    }
}

fn netns_of(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// The binary with a proxy, a server and a client.
fn sidecar() -> PathBuf {
    own_binary("interceptor-test-sidecar").expect("a binary")
}

fn proxy() -> String {
    format!("{} proxy", sidecar().display())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The response to the client's only attempt.
#[track_caller]
fn response(output: &Output) -> ServerResponse {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let attempt = Attempt::parse(stdout.lines().next().expect("an attempt")).expect("an attempt");
    attempt
        .response
        .unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

#[track_caller]
fn assert_captured(response: &ServerResponse) {
    let report = response
        .report
        .as_ref()
        .map(|report: &ProxyReport| (report.listener.as_str(), report.original.as_str()));
    assert_eq!(report, Some(("15001", REMOTE)), "{response:?}");
    assert_eq!(response.server, "remote:80");
}

#[test]
fn the_command_reaches_remote_servers_through_the_proxy() {
    let host = Host::new();
    let client = sidecar();
    let client = client.to_str().expect("UTF-8");
    let proxy = proxy();
    let output = host.run(&["--proxy-command", &proxy, "--", client, "first", REMOTE]);
    assert_captured(&response(&output));
    host.expect_nothing_left();
}

#[test]
fn settings_determine_what_is_captured() {
    let host = Host::new();
    let client = sidecar();
    let client = client.to_str().expect("UTF-8");
    let proxy = proxy();
    let excluded = [
        "--proxy-command",
        &proxy,
        "-o",
        "80",
        "--",
        client,
        "first",
        REMOTE,
    ];
    let response = response(&host.run(&excluded));
    assert_eq!(response.report, None, "{response:?}");
}

#[test]
fn a_published_port_leads_to_the_inbound_listener_of_the_proxy() {
    let host = Host::new();
    let server = format!("{} server app 8080", sidecar().display());
    let proxy = proxy();
    let exec = [
        "--publish",
        "8080",
        "--proxy-command",
        &proxy,
        "--",
        "sh",
        "-c",
        &server,
    ];
    let mut exec = host.start(&exec);
    let to = "10.1.0.2:8080".parse().expect("an address");
    let mut response = None;
    wait_until("a response", || {
        let view = send_http(&host.client, to)?;
        response = view.response.ok();
        Ok(response.is_some())
    })
    .expect("a response");
    let response = response.expect("a response");
    let report = response.report.expect("a proxy");
    assert_eq!(
        (response.server.as_str(), report.listener.as_str()),
        ("app:8080", "15006")
    );
    kill(id(&exec), Signal::SIGTERM).expect("a signal");
    exec.wait().expect("a status");
    host.expect_nothing_left();
}

#[test]
fn the_command_runs_as_the_given_user_and_its_exit_code_is_returned() {
    let host = Host::new();
    let proxy = proxy();
    let run = |script: &str, options: &[&str]| {
        let start = ["--network", "none", "--proxy-command", &proxy];
        host.run(&[&start, options, &["--", "sh", "-c", script]].concat())
    };
    let output = run("id -u; id -g; id -G; exit 17", &["--user", "nobody"]);
    assert_eq!(text(&output.stdout), "65534\n65534\n65534\n");
    assert_eq!(output.status.code(), Some(17), "{}", text(&output.stderr));
    let killed = run("kill -TERM $$", &["--user", "1234"]);
    assert_eq!(killed.status.code(), Some(128 + 15));
    host.expect_nothing_left();
}

#[test]
fn a_command_that_does_not_exist_is_reported() {
    let host = Host::new();
    let proxy = proxy();
    for (command, code) in [("/nonexistent", 127), ("/", 126)] {
        let output = host.run(&[
            "--network",
            "none",
            "--proxy-command",
            &proxy,
            "--",
            command,
        ]);
        assert_eq!(output.status.code(), Some(code));
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains(&format!("cannot run {command}: ")),
            "{stderr}"
        );
    }
}

#[test]
fn a_proxy_that_does_not_listen_is_reported() {
    let host = Host::new();
    let run = |proxy: &str, options: &[&str]| {
        let start = ["--network", "none", "--proxy-command", proxy];
        let output = host.run(&[&start, options, &["--", "echo", "started"]].concat());
        assert_eq!(output.status.code(), Some(125));
        assert_eq!(text(&output.stdout), "");
        text(&output.stderr)
    };
    let stderr = run("exit 3", &[]);
    assert!(
        stderr.contains("the proxy exited before it listened: exit status: 3"),
        "{stderr}"
    );
    let stderr = run("sleep 1000", &["--proxy-timeout", "1"]);
    assert!(
        stderr.contains("does not listen on 15001 and 15006 after 1 s"),
        "{stderr}"
    );
    host.expect_nothing_left();
}

#[test]
fn the_output_of_the_proxy_goes_to_its_log() {
    let host = Host::new();
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("proxy.log");
    let proxy = format!("echo out; echo err >&2; exec {}", proxy());
    let log_option = log.to_str().expect("UTF-8");
    let output = host.run(&[
        "--network",
        "none",
        "--proxy-command",
        &proxy,
        "--proxy-log",
        log_option,
        "--",
        "true",
    ]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout) + &text(&output.stderr), "");
    assert_eq!(fs::read_to_string(&log).expect("a log"), "out\nerr\n");
}

/// A command whose processes ignore what would end them, with a child in a session of its own.
const STUBBORN: &str = "trap '' TERM HUP INT; setsid sleep 1000 & echo started; \
                        while :; do sleep 0.1; done";

/// Starts it, and waits until it runs.
fn start_stubborn(host: &Host, script: &str) -> Child {
    let proxy = proxy();
    let mut exec = host.start(&[
        "--network",
        "none",
        "--proxy-command",
        &proxy,
        "--user",
        "0",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let stdout = exec.stdout.as_mut().expect("stdout");
    let mut line = [0; 8];
    std::io::Read::read_exact(stdout, &mut line).expect("a line");
    assert_eq!(&line, b"started\n");
    exec
}

fn id(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

#[test]
fn nothing_is_left_after_sigkill() {
    let host = Host::new();
    let mut exec = start_stubborn(&host, STUBBORN);
    let netns = netns_of(&format!("interceptor-exec-{}", exec.id()));
    let pins = pins::of_netns(cookie_at(&netns).expect("a cookie"));
    assert!(pins.exists());
    kill(id(&exec), Signal::SIGKILL).expect("a signal");
    exec.wait().expect("a status");
    host.expect_nothing_left();
    assert!(!pins.exists());
}

#[test]
fn signals_reach_the_command() {
    let host = Host::new();
    for (signal, number) in [(Signal::SIGTERM, 15), (Signal::SIGHUP, 1)] {
        let script =
            format!("trap 'exit {number}' TERM HUP; echo started; while :; do sleep 0.1; done");
        let mut exec = start_stubborn(&host, &script);
        kill(id(&exec), signal).expect("a signal");
        assert_eq!(exec.wait().expect("a status").code(), Some(number));
        host.expect_nothing_left();
    }
}

#[test]
fn a_signal_ends_the_wait_for_the_proxy() {
    let host = Host::new();
    let mut exec = host.start(&[
        "--network",
        "none",
        "--proxy-command",
        "echo started; sleep 1000",
        "--",
        "true",
    ]);
    let stderr = exec.stderr.as_mut().expect("stderr");
    let mut line = [0; 8];
    std::io::Read::read_exact(stderr, &mut line).expect("a line");
    kill(id(&exec), Signal::SIGINT).expect("a signal");
    assert_eq!(exec.wait().expect("a status").code(), Some(128 + 2));
    host.expect_nothing_left();
}

#[test]
fn a_proxy_that_listens_already_is_used_in_its_network_namespace() {
    let host = Host::new();
    let child = |name: &str| host.cgroup.child(name).expect("a cgroup");
    let pod = Netns::new("pod", Some(&child("pod"))).expect("a namespace");
    pod.ip("link add eth0 type veth peer name none0\nlink set eth0 up\nlink set none0 up")
        .expect("an interface");
    pod.ip("addr add 10.0.2.100/24 dev eth0\nroute add default dev eth0")
        .expect("a network");
    let context = LaunchContext {
        netns: &pod,
        cgroup: &child("proxy"),
        user: PROXY,
    };
    let mut proxy = Process::start(context, &sidecar(), &["proxy".to_owned()]).expect("a proxy");
    proxy
        .await_listeners(&pod, &[15001, 15006], 1)
        .expect("listeners");
    let netns = pod.path().to_str().expect("UTF-8").to_owned();
    let script = "exec 3<>/dev/tcp/10.2.0.9/80 && echo connected";
    let exec = ["--netns", &netns, "--", "bash", "-c", script];
    let output = host.run(&exec);
    assert_eq!(
        text(&output.stdout),
        "connected\n",
        "{}",
        text(&output.stderr)
    );
    host.expect_nothing_left();
    let cookie = cookie(&pod).expect("a cookie");
    assert!(!pins::of_netns(cookie).exists());

    let mut attach = Command::new(interceptor::binary());
    attach.args(["attach", "--netns", &netns, "--cgroup"]);
    attach.arg(host.cgroup.path());
    assert!(attach.status().expect("attach").success());
    let output = host.run(&exec);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("it is captured already"));
    assert!(pins::of_netns(cookie).exists());
    interceptor::detach(pod.path()).expect("detach");
}
