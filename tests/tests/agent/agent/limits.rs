//! Resource limits of the machine.

use std::{fs, os::unix::fs::PermissionsExt as _};

use interceptor_testkit::interceptor;

use super::new_node;

/// Each captured pod needs open files.
#[test]
fn the_agent_raises_its_open_files_limit() {
    let node = new_node();
    let limited = node.dir().join("limited");
    let binary = interceptor::binary();
    let script = format!(
        "#!/bin/sh\nulimit -S -n 300; ulimit -H -n 4000; exec {} \"$@\"\n",
        binary.display()
    );
    fs::write(&limited, script).expect("a script");
    fs::set_permissions(&limited, fs::Permissions::from_mode(0o755)).expect("executable");
    let mut agent = node.start_agent_of(&limited, &[]).expect("an agent");
    agent.wait_until_ready().expect("ready");
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid())).expect("limits");
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = files.and_then(|numbers| numbers.split_whitespace().next());
    assert_eq!(soft, Some("4000"), "{limits}");
}
