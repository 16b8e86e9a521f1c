//! `interceptor observe` shows each connection of any pod once, with the rule that decided: there is
//! one buffer of events for all pods, and one reader.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
    lab::{Caller, Lab},
    spawn::spawn,
};
use serde_json::{Value, json};

use crate::alone;

pub(crate) const EVENT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longer than the interval at which the observer reads.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

const FLAGS: [&str; 9] = [
    "-b",
    "*",
    "-d",
    "8080",
    "-i",
    "*",
    "-o",
    "443",
    "--dual-stack",
];

/// A command that prints a line for each flow, killed when dropped.
pub(crate) struct Observer {
    child: Child,
    pub(crate) lines: Receiver<String>,
}

impl Observer {
    /// Reads standard error if `is_log`, otherwise standard output.
    pub(crate) fn start(mut command: Command, is_log: bool) -> Self {
        command.stdin(Stdio::null());
        if is_log {
            command.stderr(Stdio::piped());
        } else {
            command.stdout(Stdio::piped());
        }
        let mut child = spawn(command).expect("interceptor");
        let (sender, lines) = channel();
        let read = move |lines: &mut dyn Iterator<Item = std::io::Result<String>>| {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        };
        if is_log {
            let stderr = child.stderr.take().expect("stderr");
            thread::spawn(move || read(&mut BufReader::new(stderr).lines()));
        } else {
            let stdout = child.stdout.take().expect("stdout");
            thread::spawn(move || read(&mut BufReader::new(stdout).lines()));
        }
        Self { child, lines }
    }

    /// `interceptor observe` with JSON, which has started to read.
    fn observe(lab: &Lab, filters: &[&str]) -> Self {
        let mut command = Command::new(interceptor::binary());
        command.args(["observe", "-o", "json"]).args(filters);
        let observer = Self::start(command, false);
        // It reads once it shows a connection.
        let deadline = std::time::Instant::now() + EVENT_TIMEOUT;
        while observer.lines.recv_timeout(QUIET).is_err() {
            assert!(std::time::Instant::now() < deadline, "no flow is shown");
            lab.dial(Caller::App, "10.2.0.9:80").expect("a dial");
        }
        while observer.lines.recv_timeout(QUIET).is_ok() {}
        observer
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(EVENT_TIMEOUT).expect("a line")
    }

    /// The flows until none comes for some time.
    pub(crate) fn flows(&self) -> Vec<Value> {
        let mut flows = vec![serde_json::from_str(&self.next()).expect("a flow")];
        while let Ok(line) = self.lines.recv_timeout(QUIET) {
            flows.push(serde_json::from_str(&line).expect("a flow"));
        }
        flows
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A connection, and the members of its flow besides those of the pod and of the process.
fn cases() -> Vec<(Caller, &'static str, Value)> {
    let out = |source: &str, ip: &str, port: u16, more: Value| {
        let mut flow = json!({
            "direction": "outbound",
            "protocol": "tcp",
            "source": {"ip": source},
            "destination": {"ip": ip, "port": port},
        });
        merge(&mut flow, more);
        flow
    };
    let captured = json!({
        "verdict": "CAPTURED",
        "reason": "prefix_included",
        "explanation": "the destination is included (-i)",
        "proxy_port": 15001,
    });
    let incoming = |ip: &str, port: u16, more: Value| {
        let mut flow = json!({
            "direction": "inbound",
            "protocol": "tcp",
            "destination": {"ip": ip, "port": port},
        });
        merge(&mut flow, more);
        flow
    };
    let excluded = json!({
        "verdict": "PASSED",
        "reason": "inbound_port_excluded",
        "explanation": "the port is excluded (-d)",
    });
    vec![
        (
            Caller::App,
            "10.2.0.9:80",
            out("10.1.0.2", "10.2.0.9", 80, captured.clone()),
        ),
        (
            Caller::App,
            "[fd00:2::9]:80",
            out("fd00:1::2", "fd00:2::9", 80, captured.clone()),
        ),
        (
            Caller::App,
            "[::ffff:10.2.0.9]:80",
            out("10.1.0.2", "10.2.0.9", 80, captured),
        ),
        (
            Caller::App,
            "10.2.0.9:443",
            out(
                "10.1.0.2",
                "10.2.0.9",
                443,
                json!({
                    "verdict": "PASSED",
                    "reason": "outbound_port_excluded",
                    "explanation": "the port is excluded (-o)",
                }),
            ),
        ),
        (
            Caller::Client,
            "10.1.0.2:8080",
            incoming("10.1.0.2", 8080, excluded.clone()),
        ),
        (
            Caller::Client,
            "[fd00:1::2]:8080",
            incoming("fd00:1::2", 8080, excluded),
        ),
        (
            Caller::Client,
            "10.1.0.2:8081",
            incoming(
                "10.1.0.2",
                8081,
                json!({
                    "verdict": "CAPTURED",
                    "reason": "inbound_port_included",
                    "explanation": "the port is included (-b)",
                    "proxy_port": 15006,
                }),
            ),
        ),
    ]
}

fn merge(flow: &mut Value, more: Value) {
    if let (Some(flow), Value::Object(more)) = (flow.as_object_mut(), more) {
        flow.extend(more);
    }
}

/// Removes what differs between runs, and checks it.
#[track_caller]
fn checked(mut flow: Value, lab: &Lab, caller: Caller) -> Value {
    let members = flow.as_object_mut().expect("an object");
    let time = members.remove("time").expect("a time");
    let time: Option<jiff::Timestamp> = time.as_str().and_then(|time| time.parse().ok());
    let age = jiff::Timestamp::now().duration_since(time.expect("a time"));
    assert!((0..60).contains(&age.as_secs()), "{age}");
    let pod = json!({
        "netns": lab.pod.path().display().to_string(),
        "netns_cookie": lab.cookie(),
    });
    assert_eq!(members.remove("pod"), Some(pod));
    let process = members.remove("process");
    match caller {
        Caller::App => {
            let expected = json!({
                "pid": lab.app.pid(),
                "command": "interceptor-tes",
                "uid": 1000,
                "gid": 1000,
            });
            assert_eq!(process, Some(expected));
        }
        Caller::Client => {
            assert_eq!(process, None);
            let source = members["source"].as_object_mut().expect("a source");
            assert!(source.remove("port").is_some_and(|port| port.is_u64()));
            let source = members.remove("source").expect("a source");
            let client = members["destination"]["ip"].as_str().map(|ip| {
                if ip.contains(':') {
                    "fd00:1::1"
                } else {
                    "10.1.0.1"
                }
            });
            assert_eq!(source["ip"].as_str(), client);
        }
    }
    flow
}

fn lab(alone: &interceptor_testkit::machine::Exclusive) -> Lab {
    let lab = Lab::alone(alone).expect("a lab");
    lab.attach(&FLAGS).expect("attached");
    lab
}

#[test]
fn each_connection_is_shown_once_with_the_rule_that_decided() {
    let exclusive = alone();
    let lab = lab(&exclusive);
    lab.start_proxy().expect("a proxy");
    let observer = Observer::observe(&lab, &[]);
    for (caller, to, expected) in cases() {
        lab.dial(caller, to).expect("a dial");
        let flows = observer.flows();
        assert_eq!(flows.len(), 1, "{to}: {flows:#?}");
        for flow in flows {
            assert_eq!(checked(flow, &lab, caller), expected, "{to}");
        }
    }
}

/// The connection is captured, and refused when its first packet finds no listener.
#[test]
fn a_refused_connection_is_shown_with_its_destination() {
    let exclusive = alone();
    let lab = lab(&exclusive);
    let observer = Observer::observe(&lab, &[]);
    for (caller, to, expected) in [
        (Caller::App, "10.2.0.9:80", &["CAPTURED", "REFUSED"][..]),
        (Caller::App, "[fd00:2::9]:80", &["CAPTURED", "REFUSED"]),
        (Caller::Client, "10.1.0.2:8081", &["REFUSED"]),
    ] {
        lab.dial(caller, to).expect("a dial");
        let flows = observer.flows();
        let verdicts: Vec<_> = flows.iter().map(|flow| &flow["verdict"]).collect();
        assert_eq!(verdicts, expected, "{to}: {flows:#?}");
        let last = flows.last().expect("a flow");
        assert_eq!(last["reason"], "no_listener");
        let address: std::net::SocketAddr = to.parse().expect("an address");
        let destination = json!({"ip": address.ip().to_string(), "port": address.port()});
        assert_eq!(last["destination"], destination, "{to}");
    }
}

#[test]
fn filters_select_flows() {
    let exclusive = alone();
    let lab = lab(&exclusive);
    lab.start_proxy().expect("a proxy");
    let netns = lab.pod.path().display().to_string();
    let filters = ["--netns", &netns, "--port", "80,8080", "--not", "-6"];
    let observer = Observer::observe(&lab, &filters);
    for (caller, to, _) in cases() {
        lab.dial(caller, to).expect("a dial");
    }
    let shown: Vec<_> = observer
        .flows()
        .iter()
        .map(|flow| flow["destination"].to_string())
        .collect();
    let expected = [
        r#"{"ip":"10.2.0.9","port":80}"#,
        r#"{"ip":"10.2.0.9","port":80}"#,
        r#"{"ip":"10.1.0.2","port":8080}"#,
    ];
    assert_eq!(shown, expected);
}

/// The buffer is another one after that.
#[test]
fn an_observer_follows_pods_that_are_attached_later() {
    let exclusive = alone();
    let lab = lab(&exclusive);
    lab.start_proxy().expect("a proxy");
    let observer = Observer::observe(&lab, &[]);
    lab.detach().expect("detached");
    lab.attach(&FLAGS).expect("attached");
    let again = Observer::wait_for(&observer, &lab);
    assert_eq!(again["verdict"], "CAPTURED");
}

#[test]
fn a_second_reader_is_refused_and_the_buffer_is_free_after_the_first() {
    let exclusive = alone();
    let lab = lab(&exclusive);
    lab.start_proxy().expect("a proxy");
    let observer = Observer::observe(&lab, &[]);
    let mut second = bounded(interceptor::binary());
    second.arg("observe");
    let Output { status, stderr, .. } = output(&mut second, "").expect("a second observer");
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("another process reads the events"),
        "{stderr}"
    );
    drop(observer);
    drop(Observer::observe(&lab, &[]));
}

#[test]
fn run_logs_the_flows_of_its_pod() {
    let exclusive = alone();
    let lab = Lab::alone(&exclusive).expect("a lab");
    lab.start_proxy().expect("a proxy");
    let mut command = Command::new(interceptor::binary());
    command.arg("run").arg("--netns").arg(lab.pod.path());
    command.arg("--cgroup").arg(lab.cgroup.path());
    command.args(FLAGS).arg("--log");
    let log = Observer::start(command, true);
    let first = log.next();
    assert!(first.contains("is captured"), "{first}");
    let deadline = std::time::Instant::now() + EVENT_TIMEOUT;
    let line = loop {
        assert!(std::time::Instant::now() < deadline, "no flow is logged");
        lab.dial(Caller::App, "10.2.0.9:443").expect("a dial");
        if let Ok(line) = log.lines.recv_timeout(QUIET) {
            break line;
        }
    };
    let netns = lab.pod.path().display();
    let expected = format!(
        ": {netns} outbound 10.1.0.2 -> 10.2.0.9:443 PASSED: the port is excluded (-o) \
         [interceptor-tes {}, uid 1000, gid 1000]",
        lab.app.pid()
    );
    assert!(line.ends_with(&expected), "{line}");
}

impl Observer {
    /// The next flow, while the app dials.
    fn wait_for(&self, lab: &Lab) -> Value {
        let deadline = std::time::Instant::now() + EVENT_TIMEOUT;
        loop {
            assert!(std::time::Instant::now() < deadline, "no flow is shown");
            lab.dial(Caller::App, "10.2.0.9:80").expect("a dial");
            if let Ok(line) = self.lines.recv_timeout(QUIET) {
                return serde_json::from_str(&line).expect("a flow");
            }
        }
    }
}
