//! `interceptor uninstall --node`, where the agent is gone.

use std::fs;

use ::interceptor::agent::install::{self, InstallOptions};
use clap::Parser;
use interceptor_tests::interceptor;
use serde_json::Value;

const CALICO: &str =
    r#"{"name":"net","cniVersion":"0.3.1","plugins":[{"type":"calico"},{"type":"portmap"}]}"#;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    install: InstallOptions,
}

#[test]
fn a_node_whose_agent_is_gone_is_left_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let [bin, conf] = ["bin", "net.d"].map(|name| folder.path().join(name).display().to_string());
    let file = folder.path().join("net.d/10-calico.conflist");
    fs::create_dir(&conf).expect("a folder");
    fs::write(&file, CALICO).expect("a file");
    let folders = ["--cni-bin-dir", &bin, "--cni-conf-dir", &conf];
    let options = Command::parse_from([&["agent"], &folders[..]].concat()).install;
    install::once(&options).expect("an installation");
    assert!(
        fs::read_to_string(&file)
            .expect("a file")
            .contains("interceptor-cni")
    );

    let uninstall = || {
        let output = interceptor::try_run([&["uninstall", "--node"], &folders[..]].concat());
        let output = output.expect("a run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let said = uninstall();
    assert!(
        said.contains("10-calico.conflist") && said.contains("removed"),
        "{said}"
    );
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(
        read(&fs::read_to_string(&file).expect("a file")),
        read(CALICO)
    );
    assert_eq!(fs::read_dir(&bin).expect("a folder").count(), 0);
    assert!(uninstall().contains("is not on this node"));
}
