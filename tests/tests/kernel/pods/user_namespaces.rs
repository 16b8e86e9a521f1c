//! A pod with a user namespace (`hostUsers: false`), compared with iptables.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use interceptor_testkit::{
    actor::{Actor, User},
    cgroup::Cgroup,
    command::{bounded, output, run},
    interceptor,
    lab::{dial, stderr_of, wait_until},
    machine::{self, Shared},
    netns::Netns,
    users::ROOT,
    world::{Bind, serve},
};

/// The first of the pod's IDs on the machine.
const FIRST: u32 = 100_000;

const RULES: [&str; 2] = [
    "-A OUTPUT -p tcp -m owner --uid-owner 1337 -j RETURN",
    "-A OUTPUT -p tcp -j REDIRECT --to-ports 15001",
];

struct Pod {
    actors: [Actor; 3],
    proxy: Actor,
    _remote: Actor,
    _peer: Netns,
    holder: Child,
    path: PathBuf,
    cgroup: Cgroup,
    _shared: Shared,
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _detached = output(&mut self.command("detach"), "");
        let _killed = self.holder.kill();
        let _waited = self.holder.wait();
    }
}

/// A process that holds a user and a network namespace, for a while.
fn hold() -> Result<Child> {
    let mut command = bounded("unshare");
    // Foreground: so that the process itself is killed.
    let command = command.args(["--user", "--net", "sleep", "60"]);
    let child = command.stdin(Stdio::null()).spawn()?;
    Ok(child)
}

/// The process that `timeout` runs.
fn child_of(pid: u32) -> Result<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let mut child = None;
    wait_until("a process in its own user namespace", || {
        let children = fs::read_to_string(&path)?;
        child = children.split_whitespace().next().map(str::to_owned);
        let Some(child) = &child else {
            return Ok(false);
        };
        let own = fs::read_link("/proc/self/ns/user")?;
        Ok(fs::read_link(format!("/proc/{child}/ns/user"))? != own)
    })?;
    Ok(child.context("a child")?.parse()?)
}

impl Pod {
    fn new() -> Result<Self> {
        let shared = machine::shared()?;
        let cgroup = Cgroup::new()?;
        let peer = Netns::new("peer", Some(&cgroup.child("peer")?))?;
        let holder = hold()?;
        let inside = child_of(holder.id())?;
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{inside}/{map}"), format!("0 {FIRST} 65536"))?;
        }
        fs::write(
            cgroup.child("pod")?.join("cgroup.procs"),
            inside.to_string(),
        )?;
        let path = PathBuf::from(format!("/proc/{inside}/ns/net"));
        peer.ip(&format!(
            "link add eth0 type veth peer name eth0 netns {inside}\n\
             addr add 10.1.0.1/24 dev eth0\n\
             addr add 10.2.0.9/32 dev lo\n\
             link set eth0 up"
        ))?;
        run(
            bounded("nsenter")
                .arg(format!("--net={}", path.display()))
                .args(["ip", "-batch", "-"]),
            "link set lo up\nlink set eth0 up\naddr add 10.1.0.2/24 dev eth0\n\
             route add default via 10.1.0.1",
        )?;
        let start = |name: &str, uid| {
            let netns = interceptor_testkit::actor::process::Namespace::At(path.clone());
            Actor::start(
                name,
                User::new(uid, uid),
                netns,
                Some(&cgroup.child("pod")?),
            )
        };
        let remote = Actor::start(
            "remote",
            ROOT,
            peer.namespace(),
            Some(&cgroup.child("peer")?),
        )?;
        serve(&remote, Bind::V4_WILDCARD, 80)?;
        let proxy = start("proxy", FIRST + 1337)?;
        serve(&proxy, Bind::V4_WILDCARD, 15001)?;
        Ok(Self {
            // The app, the proxy, and an outside process with the proxy's ID there.
            actors: [
                start("app", FIRST + 1000)?,
                start("proxy", FIRST + 1337)?,
                start("outsider", 1337)?,
            ],
            proxy,
            _remote: remote,
            _peer: peer,
            holder,
            path,
            cgroup,
            _shared: shared,
        })
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = bounded(interceptor::binary());
        command.arg(verb).arg("--netns").arg(&self.path);
        command
    }

    fn attach(&self, flags: &[&str]) -> Command {
        let mut command = self.command("attach");
        command.arg("--cgroup").arg(self.cgroup.path()).args(flags);
        command
    }

    /// Root of the pod, the only user that may name owners there (`owner_check`).
    fn iptables(&self, arguments: &str) -> Result<()> {
        let inside = self.path.iter().nth(2).context("a process")?;
        let namespace = |kind: &str| {
            format!(
                "--{kind}={}",
                Path::new("/proc")
                    .join(inside)
                    .join("ns")
                    .join(kind)
                    .display()
            )
        };
        let mut command = bounded("nsenter");
        command
            .args([namespace("user"), namespace("net")])
            .args(["iptables-nft", "-t", "nat"])
            .args(arguments.split_whitespace());
        run(&mut command, "").map(drop)
    }

    fn responses(&self) -> Vec<String> {
        let dials = self.actors.iter().map(|actor| dial(actor, "10.2.0.9:80"));
        dials.collect::<Result<_>>().expect("dials")
    }
}

/// `xt_owner` interprets the IDs of its rules in the user namespace that owns the network
/// namespace: Interceptor does the same.
#[test]
fn owners_are_those_of_the_pods_user_namespace() {
    let pod = Pod::new().expect("a pod");
    assert_eq!(pod.responses(), ["remote:80"; 3]);
    RULES
        .iter()
        .try_for_each(|rule| pod.iptables(rule))
        .expect("rules");
    let behind_iptables = pod.responses();
    pod.iptables("-F OUTPUT").expect("no rules");
    let captured = "proxy:15001 for 10.2.0.9:80";
    assert_eq!(behind_iptables, [captured, "remote:80", captured]);
    stderr_of(&mut pod.attach(&["-u", "1337", "-g", "1337", "-b", "", "-i", "*"]))
        .expect("attached");
    assert_eq!(pod.responses(), behind_iptables);
    let _proxy = &pod.proxy;
}

/// iptables refuses such a rule (`owner_check`); Interceptor does so too, and changes nothing.
#[test]
fn an_owner_without_a_mapping_is_refused() {
    let pod = Pod::new().expect("a pod");
    pod.iptables("-A OUTPUT -p tcp -m owner --uid-owner 70000 -j RETURN")
        .expect_err("no such user");
    let refused = output(&mut pod.attach(&["-u", "70000", "-i", "*"]), "").expect("output");
    let printed = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{printed}");
    assert!(printed.contains("UID 70000"), "{printed}");
    assert_eq!(pod.responses(), ["remote:80"; 3]);
}
