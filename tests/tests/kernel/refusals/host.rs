//! Environments in which an attach would not last, or capture nothing.

use std::process::Command;

use interceptor_testkit::{
    cgroup,
    command::bounded,
    interceptor,
    lab::{Lab, STOCK},
};

use crate::refusals::{FAILED, Subjects};

/// `interceptor attach` for `lab`, after `prelude` in a shell that `wrapper` starts: the pod is at
/// `$POD`, its cgroup at `$CGROUP`.
fn attach_in(lab: &Lab, wrapper: &[&str], prelude: &str, flags: &str) -> Command {
    let mut command = bounded(wrapper[0]);
    command.args(&wrapper[1..]);
    let script = format!(
        "set -e; {prelude}\n\
         exec \"$INTERCEPTOR\" attach --netns \"$POD\" {flags} -b '*' -i '*'"
    );
    command.args(["sh", "-c", &script]);
    command.env("INTERCEPTOR", interceptor::binary());
    command.env("POD", lab.pod.path());
    command.env("CGROUP", lab.cgroup.path());
    command.env("MOUNT", cgroup::mount().expect("cgroup2"));
    command
}

const PRIVATE_MOUNTS: [&str; 4] = ["unshare", "--mount", "--propagation", "private"];
const AT_CGROUP: &str = "--cgroup \"$CGROUP\"";

#[test]
fn another_user_is_refused() {
    let subjects = Subjects::new();
    let user = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"];
    subjects.refuse(FAILED, &["root", "sudo", "CAP_BPF"], |lab| {
        attach_in(lab, &user, "", AT_CGROUP)
    });
    for verb in ["detach", "status"] {
        subjects.refuse(FAILED, &["root"], |lab| {
            let mut command = bounded(user[0]);
            command.args(&user[1..]).arg(interceptor::binary());
            command.args([verb, "--netns"]).arg(lab.pod.path());
            command
        });
    }
}

/// Root of a user namespace is not root.
#[test]
fn root_of_a_user_namespace_is_refused() {
    let subjects = Subjects::new();
    let user = ["unshare", "--user", "--map-root-user"];
    subjects.refuse(FAILED, &["root"], |lab| {
        attach_in(lab, &user, "", AT_CGROUP)
    });
}

/// istio-init's capabilities are not sufficient, and the missing ones are named.
#[test]
fn root_without_the_capabilities_is_refused() {
    let subjects = Subjects::new();
    let all = "+net_admin,+net_raw,+setuid,+setgid,+dac_override,+chown,+fowner,+kill";
    let kept = format!("-all,{all}");
    let bounds = ["setpriv", "--bounding-set", &kept, "--inh-caps", &kept];
    subjects.refuse(FAILED, &["CAP_SYS_ADMIN"], |lab| {
        attach_in(lab, &bounds, "", AT_CGROUP)
    });
}

#[test]
fn a_private_bpffs_is_refused() {
    let subjects = Subjects::new();
    let words = ["/sys/fs/bpf", "private"];
    subjects.refuse(FAILED, &words, |lab| {
        let mount = "mount -t bpf none /sys/fs/bpf";
        attach_in(lab, &PRIVATE_MOUNTS, mount, AT_CGROUP)
    });
}

#[test]
fn no_bpffs_in_a_private_mount_namespace_is_refused() {
    let subjects = Subjects::new();
    let words = ["no bpffs is mounted", "/sys/fs/bpf"];
    for hidden in ["umount /sys/fs/bpf", "mount -t tmpfs none /sys/fs/bpf"] {
        subjects.refuse(FAILED, &words, |lab| {
            attach_in(lab, &PRIVATE_MOUNTS, hidden, AT_CGROUP)
        });
    }
}

#[test]
fn no_cgroup2_is_refused() {
    let subjects = Subjects::new();
    let words = ["no cgroup2", "mount -t cgroup2"];
    subjects.refuse(FAILED, &words, |lab| {
        attach_in(lab, &PRIVATE_MOUNTS, "umount --lazy \"$MOUNT\"", "")
    });
}

/// The host's own bpffs in another mount namespace is sufficient.
#[test]
fn the_hosts_bpffs_in_a_private_mount_namespace_works() {
    let lab = Lab::new().expect("a lab");
    let mut command = attach_in(&lab, &PRIVATE_MOUNTS, "", AT_CGROUP);
    interceptor_testkit::lab::stderr_of(&mut command).expect("attached");
    assert!(!lab.traces().expect("traces").links.is_empty());
}

/// Pins in a container are deleted with the container.
#[test]
fn a_nested_pid_namespace_is_refused() {
    let subjects = Subjects::new();
    let nested = ["unshare", "--pid", "--fork", "--mount-proc"];
    subjects.refuse(FAILED, &["/sys/fs/bpf", "private"], |lab| {
        // The pod's processes have no PIDs in there; a descriptor works.
        let mut command = bounded("sh");
        command.args(["-c", "exec 9<\"$POD\"; exec \"$@\"", "sh"]);
        command.args(nested).arg(interceptor::binary());
        command.args(["attach", "--netns", "/proc/self/fd/9"]);
        command.env("POD", lab.pod.path());
        command.arg("--cgroup").arg(lab.cgroup.path());
        command.args(STOCK);
        command
    });
}

/// A cgroup namespace whose root is the pod's cgroup, with a mount of that root.
const CGROUP_NAMESPACE: &str = "echo $$ > \"$CGROUP/cgroup.procs\"
    exec unshare --cgroup --mount --propagation private sh -c 'set -e
        umount \"$MOUNT\" || true
        mount -t cgroup2 none \"$MOUNT\"
        exec \"$@\"' sh";

fn attach_in_cgroup_namespace(lab: &Lab, flags: &[&str]) -> Command {
    let mut command = attach_in(lab, &["env"], "", "");
    // The prelude ends with an exec of the rest.
    let flags = flags.join(" ");
    let script = format!("{CGROUP_NAMESPACE} \"$INTERCEPTOR\" attach --netns \"$POD\" {flags}");
    command = {
        let mut shell = bounded("sh");
        shell.args(["-c", &script]);
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        shell
    };
    command
}

#[test]
fn the_root_of_a_cgroup_namespace_is_refused() {
    let subjects = Subjects::new();
    let words = ["root of a cgroup namespace", "--cgroup"];
    subjects.refuse(FAILED, &words, |lab| attach_in_cgroup_namespace(lab, &[]));
}

/// If named, it is a cgroup like others, which must contain all processes of the pod.
#[test]
fn a_cgroup_namespace_root_missing_a_process_is_refused() {
    let subjects = Subjects::new();
    let named = ["--cgroup", "\"$MOUNT\""];
    for lab in subjects.both() {
        let outside = cgroup::Cgroup::new().expect("a cgroup");
        let guest = interceptor_testkit::actor::Actor::start(
            "guest",
            interceptor_testkit::users::APP,
            lab.pod.namespace(),
            Some(outside.path()),
        )
        .expect("an actor");
        let mut command = attach_in_cgroup_namespace(lab, &named);
        let output = interceptor_testkit::command::output(&mut command, "").expect("a run");
        let pid = guest.pid().to_string();
        crate::refusals::expect_refusal(&command, &output, FAILED, &["does not contain", &pid]);
    }
    subjects.expect_unchanged();
}

#[test]
fn a_cgroup_namespace_root_with_all_processes_is_accepted() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let flags = ["--cgroup", "\"$MOUNT\"", "-i", "'*'"];
    interceptor_testkit::lab::stderr_of(&mut attach_in_cgroup_namespace(&lab, &flags))
        .expect("attached");
    let response = lab.dial(interceptor_testkit::lab::Caller::App, "10.2.0.9:80");
    assert_eq!(response.expect("a dial"), "proxy:15001 for 10.2.0.9:80");
}
