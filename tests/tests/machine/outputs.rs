//! The whole output of the commands for a captured pod.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
    lab::{Caller, Lab, STOCK},
    snapshot::Snapshots,
};

use crate::alone;

const TIMEOUT: Duration = Duration::from_secs(20);

/// The formats of `observe`.
const FORMATS: [&str; 4] = ["compact", "dict", "json", "table"];

struct Scene {
    lab: Lab,
    snapshots: Snapshots,
}

impl Scene {
    fn check(&self, name: &str, mut command: Command) {
        let checked = self.snapshots.check(&format!("pod/{name}"), &mut command);
        checked.expect("a run");
    }

    /// `interceptor VERB --netns NETNS OPTIONS…`
    fn check_verb(&self, verb: &str, name: &str, options: &[&str]) {
        let mut command = self.lab.command(verb);
        command.args(options);
        self.check(name, command);
    }
}

fn scene(lab: Lab) -> Scene {
    let own = [
        ("[NETNS]", lab.pod.path().display().to_string()),
        ("[CGROUP]", lab.cgroup.path().display().to_string()),
    ];
    let snapshots = Snapshots::new(&own).expect("snapshots");
    Scene { lab, snapshots }
}

#[test]
fn commands_print_the_recorded_texts() {
    let alone = alone();
    let scene = scene(Lab::alone(&alone).expect("a lab"));
    scene.check_verb("status", "status-uncaptured", &[]);
    scene.check_verb("explain", "explain-uncaptured", &["--to", "10.2.0.9:80"]);
    scene.check("attach", scene.lab.attach_command(STOCK));
    scene.check("attach-again", scene.lab.attach_command(STOCK));
    let changed = [STOCK, &["-o", "443"]].concat();
    scene.check("attach-changed", scene.lab.attach_command(&changed));
    scene.check_verb("status", "status-without-proxy", &[]);
    let _proxy = scene.lab.start_proxy().expect("a proxy");
    for (caller, to) in [
        (Caller::App, "10.2.0.9:80"),
        (Caller::App, "10.2.0.9:443"),
        (Caller::Client, "10.1.0.2:8080"),
    ] {
        scene.lab.dial(caller, to).expect("a dial");
    }
    scene.check("status-all", with(&["status"]));
    for format in ["wide", "json", "yaml"] {
        let name = format!("status-{format}");
        scene.check(&name, with(&["status", "-o", format]));
    }
    scene.check_verb("status", "status-pod", &[]);
    for (name, options) in [
        ("explain-captured", &["--to", "10.2.0.9:80"][..]),
        ("explain-excluded", &["--to", "10.2.0.9:443"]),
        ("explain-json", &["--to", "10.2.0.9:80", "-o", "json"]),
    ] {
        scene.check_verb("explain", name, options);
    }
    observe(&scene);
    scene.check_verb("detach", "detach", &[]);
    scene.check_verb("detach", "detach-again", &[]);
}

fn with(arguments: &[&str]) -> Command {
    let mut command = bounded(interceptor::binary());
    command.args(arguments);
    command
}

/// The first flow of an observer: from another process than the test's, so that it can wait.
fn observe(scene: &Scene) {
    for format in FORMATS {
        let mut command = scene.lab.command("observe");
        command.args(["--first", "1", "--verdict", "CAPTURED", "-o", format]);
        let text = thread::scope(|scope| {
            let observer = scope.spawn(move || output(&mut command, "").expect("a run"));
            let start = Instant::now();
            while !observer.is_finished() {
                assert!(start.elapsed() < TIMEOUT, "no flow is shown");
                scene.lab.dial(Caller::App, "10.2.0.9:80").expect("a dial");
            }
            observer.join().expect("an observer")
        });
        let text = String::from_utf8(text.stdout).expect("UTF-8");
        scene
            .snapshots
            .compare(&format!("pod/observe-{format}"), &text);
    }
}
