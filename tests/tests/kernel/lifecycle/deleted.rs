//! Cgroups that are deleted while a pod is attached there.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use interceptor_testkit::{
    actor::{Actor, protocol::Handle},
    bpf::pins,
    cgroup::Cgroup,
    command::output,
    lab::{Lab, STOCK, all_captured, dial},
    users::{APP, PROXY},
    world::{Bind, serve},
};

const NOTHING: &[String] = &[];

/// A pod whose processes were moved to another cgroup, and whose own was deleted.
struct Moved {
    lab: Lab,
    listeners: Vec<Handle>,
    old: PathBuf,
    old_id: u64,
    new: PathBuf,
}

impl Moved {
    fn new() -> Self {
        let lab = Lab::new().expect("a lab");
        let listeners = lab.start_proxy().expect("a proxy");
        let old = lab.cgroup.child("pod").expect("a cgroup");
        let new = lab.cgroup.child("moved").expect("a cgroup");
        lab.attach_at(&old, STOCK).expect("attached");
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
        let old_id = id(&old);
        move_pod(&lab, &new);
        for name in ["proxy", "app", ""] {
            fs::remove_dir(old.join(name)).expect("an empty cgroup");
        }
        Self {
            lab,
            listeners,
            old,
            old_id,
            new,
        }
    }

    fn old_links(&self) -> Vec<String> {
        pins::links_of_cgroup(self.old_id).expect("links")
    }

    /// The server that responds to an app that is started in `cgroup`, as the proxy is: a socket
    /// stays in the cgroup that it was created in.
    fn dial_in(&mut self, cgroup: &Path) -> String {
        let lab = &self.lab;
        let start = |name, user| {
            let actor = Actor::start(name, user, lab.pod.namespace(), Some(cgroup));
            actor.expect("an actor")
        };
        let (app, proxy) = (start("app", APP), start("proxy", PROXY));
        lab.close(std::mem::take(&mut self.listeners))
            .expect("closed");
        serve(&proxy, Bind::V4_WILDCARD, 15001).expect("a listener");
        dial(&app, "10.2.0.9:80").expect("a dial")
    }
}

fn id(cgroup: &Path) -> u64 {
    fs::metadata(cgroup).expect("a cgroup").ino()
}

/// Moves the pod's processes.
fn move_pod(lab: &Lab, to: &Path) {
    for name in ["pod/proxy", "pod/app", "pod"] {
        move_all(&lab.cgroup.path().join(name), to);
    }
}

fn move_all(from: &Path, to: &Path) {
    let processes = fs::read_to_string(from.join("cgroup.procs")).expect("processes");
    for pid in processes.lines() {
        fs::write(to.join("cgroup.procs"), pid).expect("moved");
    }
}

/// Not everything is captured, and the status must report that.
#[test]
fn a_deleted_cgroup_is_reported() {
    let moved = Moved::new();
    let status = output(&mut moved.lab.command("status"), "").expect("status");
    let printed = String::from_utf8_lossy(&status.stdout);
    assert_eq!(status.status.code(), Some(3), "{printed}");
    assert!(printed.contains("Warning: "), "{printed}");
    assert!(
        printed.contains(&moved.old.display().to_string()),
        "{printed}"
    );
}

#[test]
fn a_deleted_cgroup_is_replaced() {
    let mut moved = Moved::new();
    let new = moved.new.clone();
    let printed = moved.lab.attach_at(&new, STOCK).expect("attached");
    assert!(printed.contains("captured"), "{printed}");
    assert_eq!(moved.dial_in(&new), "proxy:15001 for 10.2.0.9:80");
    assert_eq!(moved.old_links(), NOTHING);
    moved.lab.detach().expect("detached");
    assert_eq!(moved.dial_in(&new), "remote:80");
}

/// A cgroup of the same name is another one.
#[test]
fn a_recreated_cgroup_is_attached_again() {
    let mut moved = Moved::new();
    let again = moved.old.clone();
    fs::create_dir(&again).expect("a cgroup");
    assert_ne!(id(&again), moved.old_id);
    move_all(&moved.new, &again);
    moved.lab.attach_at(&again, STOCK).expect("attached");
    assert_eq!(moved.dial_in(&again), "proxy:15001 for 10.2.0.9:80");
    assert_eq!(moved.old_links(), NOTHING);
}

#[test]
fn a_pod_whose_cgroup_is_deleted_is_detached() {
    let mut moved = Moved::new();
    moved.lab.detach().expect("detached");
    assert_eq!(moved.old_links(), NOTHING);
    let new = moved.new.clone();
    assert_eq!(moved.dial_in(&new), "remote:80");
}

/// Links to a cgroup are deleted with the last pod that is attached there.
#[test]
fn a_cgroup_that_two_pods_share_is_left_with_the_last() {
    let shared = Cgroup::new().expect("a cgroup");
    let labs = [Lab::new().expect("a lab"), Lab::new().expect("a lab")];
    for lab in &labs {
        move_pod(lab, shared.path());
        lab.attach_at(shared.path(), STOCK).expect("attached");
    }
    let links = || pins::links_of_cgroup(id(shared.path())).expect("links");
    let before = links();
    assert!(!before.is_empty());
    labs[0].detach().expect("detached");
    assert_eq!(links(), before);
    labs[1].detach().expect("detached");
    assert_eq!(links(), NOTHING);
}
