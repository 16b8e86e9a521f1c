//! `interceptor run --log` prints every verdict of any pod: there is one buffer for all.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use interceptor_testkit::{
    interceptor,
    lab::{Caller, Lab},
    spawn::spawn,
};

use crate::alone;

const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

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

/// `interceptor run --log`, killed when dropped.
struct VerdictLog {
    child: Child,
    lines: Receiver<String>,
}

impl VerdictLog {
    fn start(lab: &Lab) -> Self {
        let mut command = Command::new(interceptor::binary());
        command.arg("run").arg("--netns").arg(lab.pod.path());
        command.arg("--cgroup").arg(lab.cgroup.path());
        command.args(FLAGS).arg("--log");
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = spawn(command).expect("interceptor run");
        let stderr = child.stderr.take().expect("stderr");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let log = Self { child, lines };
        let first = log.next();
        assert!(first.contains("is captured"), "{first}");
        log
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(EVENT_TIMEOUT).expect("a line")
    }

    /// Exactly one line, for this connection.
    #[track_caller]
    fn expect(&self, lab: &Lab, caller: Caller, to: &str, line: &str) {
        lab.dial(caller, to).expect("a dial");
        assert_eq!(self.next(), line);
        let more = self.lines.recv_timeout(Duration::from_millis(100));
        assert!(more.is_err(), "{more:?}");
    }
}

impl Drop for VerdictLog {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn every_verdict_is_logged_with_its_reason() {
    const OUT: &str = "CAPTURED to 15001, the destination is included (-i)";

    let exclusive = alone();
    let lab = Lab::alone(&exclusive).expect("a lab");
    lab.start_proxy().expect("a proxy");
    let log = VerdictLog::start(&lab);
    for (caller, to, line) in [
        (
            Caller::App,
            "10.2.0.9:80",
            format!("out 10.2.0.9:80 by uid 1000: {OUT}"),
        ),
        (
            Caller::App,
            "[fd00:2::9]:80",
            format!("out [fd00:2::9]:80 by uid 1000: {OUT}"),
        ),
        (
            Caller::App,
            "[::ffff:10.2.0.9]:80",
            format!("out 10.2.0.9:80 by uid 1000: {OUT}"),
        ),
        (
            Caller::App,
            "10.2.0.9:443",
            "out 10.2.0.9:443 by uid 1000: PASSED, the port is excluded (-o)".to_owned(),
        ),
        (
            Caller::Client,
            "10.1.0.2:8080",
            "in  10.1.0.2:8080: PASSED, the port is excluded (-d)".to_owned(),
        ),
        (
            Caller::Client,
            "[fd00:1::2]:8080",
            "in  [fd00:1::2]:8080: PASSED, the port is excluded (-d)".to_owned(),
        ),
        (
            Caller::Client,
            "10.1.0.2:8081",
            "in  10.1.0.2:8081: CAPTURED to 15006, the port is included (-b)".to_owned(),
        ),
    ] {
        log.expect(&lab, caller, to, &line);
    }
}
