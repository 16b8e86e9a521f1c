//! `interceptor istio-iptables`, run in the pod's own network namespace as istio-init is.

mod attaching;
mod dry_run;
mod names;
mod proving;
mod strictness;

use std::process::Output;

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
    lab::{Lab, STOCK},
};

/// istio-iptables' exit code for a pod that is not captured.
const NOT_PROVEN: i32 = 126;

/// The context of a program in the pod: its network namespace, and a cgroup below the lab's.
struct InPod<'a> {
    lab: &'a Lab,
    /// A wrapper that changes its capabilities.
    wrapper: &'a [&'a str],
}

impl<'a> InPod<'a> {
    /// With all capabilities of the tests.
    const fn privileged(lab: &'a Lab) -> Self {
        Self { lab, wrapper: &[] }
    }

    fn run(&self, program: &str, arguments: &[&str], input: &str) -> Output {
        let mut command = bounded("sh");
        // No process of the test may be in the pod: it would be outside the cgroup.
        let script = "echo $$ > \"$CGROUP/pod/cgroup.procs\"; exec nsenter --net=\"$POD\" \"$@\"";
        command.args(["-c", script, "sh"]).args(self.wrapper);
        command.arg(program).args(arguments);
        command.env("CGROUP", self.lab.cgroup.path());
        command.env("POD", self.lab.pod.path());
        output(&mut command, input).expect("a run")
    }

    /// `interceptor istio-iptables`, attaching at the lab's cgroup.
    fn istio_iptables(&self, flags: &[&str]) -> Output {
        let binary = interceptor::binary().display().to_string();
        let cgroup = self.lab.cgroup.path().display().to_string();
        let own = ["istio-iptables", "--cgroup", &cgroup];
        self.run(&binary, &[&own, flags].concat(), "")
    }

    /// The same with the stock settings.
    fn stock(&self, flags: &[&str]) -> Output {
        self.istio_iptables(&[STOCK, flags].concat())
    }
}

fn output_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It must exit with `code` and print all of `words`.
#[track_caller]
fn expect(output: &Output, code: i32, words: &[&str]) {
    let printed = output_text(output);
    assert_eq!(output.status.code(), Some(code), "{printed}");
    for word in words {
        assert!(printed.contains(word), "no {word:?} in: {printed}");
    }
}
