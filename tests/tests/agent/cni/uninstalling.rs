//! `interceptor uninstall --node`, without an agent.

use std::{
    fs, iter,
    path::Path,
    process::{self, Stdio},
    thread,
    time::Duration,
};

use ::interceptor::{
    agent::install::{self, InstallOptions},
    cni::files,
};
use clap::Parser;
use interceptor_testkit::{interceptor, machine};
use serde_json::Value;

const CALICO: &str =
    r#"{"name":"net","cniVersion":"0.3.1","plugins":[{"type":"calico"},{"type":"portmap"}]}"#;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    install: InstallOptions,
}

const BRIDGE: &str = r#"{"cniVersion":"0.4.0","name":"mynet","type":"bridge"}"#;

/// The networks in `conf` that a runtime would read, in its order. Each must be complete.
fn networks(conf: &Path) -> Vec<Value> {
    let files = fs::read_dir(conf).expect("a directory");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    let read = files.iter().filter(|file| {
        let extension = file.extension().unwrap_or_default();
        extension == "conf" || extension == "conflist"
    });
    let texts = read.map(|file| fs::read_to_string(file).expect("a text"));
    texts
        .map(|text| serde_json::from_str(&text).expect("a complete network"))
        .collect()
}

/// The next call completes the uninstallation.
#[test]
fn killed_at_any_point_it_leaves_a_network() {
    // While other tests' pods are captured, the plugin stays.
    let _alone = machine::exclusive().expect("the machine");
    let dir = tempfile::tempdir().expect("a directory");
    let [bin, conf] = ["bin", "net.d"].map(|name| dir.path().join(name));
    fs::create_dir(&conf).expect("a directory");
    fs::write(conf.join("10-net.conf"), BRIDGE).expect("a file");
    let dirs = [
        "--cni-bin-dir".into(),
        bin,
        "--cni-conf-dir".into(),
        conf.clone(),
    ];
    let arguments = iter::once("agent".into()).chain(dirs.clone());
    let options = Command::parse_from(arguments).install;
    for step in 0..40 {
        install::once(&options).expect("an installation");
        let mut command = process::Command::new(interceptor::binary());
        command.args(["uninstall", "--node"]).args(&dirs);
        let mut uninstall = command.stderr(Stdio::null()).spawn().expect("a process");
        thread::sleep(Duration::from_micros(250 * step));
        uninstall.kill().expect("a process to kill");
        uninstall.wait().expect("an exit status");
        let networks = networks(&conf);
        let first = networks.first().expect("a network");
        assert!(first.to_string().contains("\"bridge\""), "{first}");
    }
    files::uninstall(&options.dirs).expect("an uninstallation");
    let names = fs::read_dir(&conf).expect("a directory");
    let names: Vec<_> = names
        .map(|file| file.expect("a file").file_name())
        .collect();
    assert_eq!(names, ["10-net.conf"]);
    assert_eq!(
        fs::read_to_string(conf.join("10-net.conf")).expect("a file"),
        BRIDGE
    );
}

#[test]
fn a_node_without_an_agent_is_restored() {
    let _alone = machine::exclusive().expect("the machine");
    let dir = tempfile::tempdir().expect("a directory");
    let [bin, conf] = ["bin", "net.d"].map(|name| dir.path().join(name).display().to_string());
    let file = dir.path().join("net.d/10-calico.conflist");
    fs::create_dir(&conf).expect("a directory");
    fs::write(&file, CALICO).expect("a file");
    let dirs = ["--cni-bin-dir", &bin, "--cni-conf-dir", &conf];
    let options = Command::parse_from([&["agent"], &dirs[..]].concat()).install;
    install::once(&options).expect("an installation");
    assert!(
        fs::read_to_string(&file)
            .expect("a file")
            .contains("interceptor-cni")
    );

    let uninstall = || {
        let output = interceptor::try_run([&["uninstall", "--node"], &dirs[..]].concat());
        let output = output.expect("a run");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        stderr
    };
    let stderr = uninstall();
    assert!(
        stderr.contains("10-calico.conflist") && stderr.contains("removed"),
        "{stderr}"
    );
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(
        read(&fs::read_to_string(&file).expect("a file")),
        read(CALICO)
    );
    assert_eq!(fs::read_dir(&bin).expect("a directory").count(), 0);
    assert!(uninstall().contains("is not installed on this node"));
}
