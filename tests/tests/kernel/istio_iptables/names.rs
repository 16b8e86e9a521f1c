//! The names of the binary, and its exit codes.

use std::{env, fs, os::unix::fs::symlink, path::PathBuf, process::Output};

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
};

use crate::istio_iptables::expect;

/// A directory with a link to the binary; deleted when dropped.
struct Link {
    dir: PathBuf,
    path: PathBuf,
}

impl Link {
    fn new(name: &str) -> Self {
        let dir = env::temp_dir().join(format!("interceptor-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join(name);
        symlink(interceptor::binary(), &path).expect("a link");
        Self { dir, path }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        output(bounded(&self.path).args(arguments), "").expect("a run")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(&self.dir);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

#[test]
fn named_istio_iptables_the_binary_is_that_command() {
    let expected = "-A ISTIO_INBOUND -p tcp --dport 8080 -j ISTIO_IN_REDIRECT";
    let called: [(&str, &[&str]); 3] = [
        ("istio-iptables", &["-n", "-b", "8080"]),
        ("pilot-agent", &["istio-iptables", "-n", "-b", "8080"]),
        ("interceptor", &["istio-iptables", "-n", "-b", "8080"]),
    ];
    for (name, arguments) in called {
        let output = Link::new(name).run(arguments);
        expect(&output, 0, &[]);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(printed.contains(expected), "{printed}");
    }
}

#[test]
fn a_removed_flag_is_refused_with_its_replacement() {
    let clean = Link::new("istio-clean-iptables").run(&["--dry-run"]);
    expect(&clean, 1, &["istio-clean-iptables", "--cleanup-only"]);
    let istio_iptables = Link::new("istio-iptables");
    let removed: [(&str, &str); 4] = [
        ("-f", "atomically"),
        ("--clean", "--cleanup-only"),
        ("--iptables-version=legacy", "--force-iptables-binary"),
        ("--host-nsenter-exec", "--netns"),
    ];
    for (flag, instead) in removed {
        expect(&istio_iptables.run(&["-n", flag]), 1, &[instead]);
    }
}

/// Its exit codes are in its help.
#[test]
fn the_help_lists_the_exit_codes() {
    let help = Link::new("istio-iptables").run(&["--help"]);
    expect(&help, 0, &[]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for word in [
        "0 success",
        "1 failure",
        "2 wrong command line",
        "126",
        "--force-iptables-binary",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
