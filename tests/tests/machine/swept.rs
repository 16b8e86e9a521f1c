//! Pods that were deleted without a detach.

use std::path::Path;

use interceptor_testkit::{
    bpf::{maps::Map, pins},
    cgroup::Cgroup,
    command::{bounded, output},
    interceptor,
    lab::{Lab, NOTHING, STOCK, all_captured, stderr_of, wait_until},
    netns::Netns,
};

use crate::{alone, expect_nothing_left};

/// A network namespace that only its process keeps.
struct DoomedNetns {
    netns: Netns,
    cookie: u64,
}

impl DoomedNetns {
    /// Creates one, attached at `cgroup`.
    fn attached_at(cgroup: &Path) -> Self {
        let netns = Netns::new("mortal", Some(cgroup)).expect("a namespace");
        netns
            .ip("link add eth0 type veth peer name eth1\naddr add 10.1.0.2/24 dev eth0")
            .expect("an address");
        let mut attach = bounded(interceptor::binary());
        attach.arg("attach").arg("--netns").arg(netns.path());
        attach.arg("--cgroup").arg(cgroup).args(STOCK);
        stderr_of(&mut attach).expect("attached");
        let cookie = cookie_of(netns.path());
        assert!(is_kept(cookie));
        Self { netns, cookie }
    }

    /// Kills it. Returns the cookie when the kernel has deleted it too: `status` reports that.
    fn end(self) -> u64 {
        drop(self.netns);
        wait_until("the deletion of a namespace", || {
            let status = output(bounded(interceptor::binary()).arg("status"), "")?;
            Ok(String::from_utf8_lossy(&status.stdout).contains("no longer exists"))
        })
        .expect("an exit status");
        self.cookie
    }
}

/// The cookie in `status`.
fn cookie_of(netns: &Path) -> u64 {
    let netns = netns.display().to_string();
    let output = interceptor::try_run(["status", "-o", "json", "--netns", &netns]);
    let output = output.expect("status");
    let pods: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let cookie = pods[0]["netns_cookie"].as_u64();
    cookie.unwrap_or_else(|| panic!("{pods}"))
}

fn is_kept(cookie: u64) -> bool {
    let pinned = pins::of_netns(cookie);
    let policies = Map::of_interceptor("icept_policies").expect("the policies");
    let policy = policies.and_then(|map| map.get(&cookie.to_ne_bytes()).expect("a look-up"));
    pinned.exists() || policy.is_some()
}

#[test]
fn a_deleted_namespace_is_swept_by_the_next_attach() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let cgroup = lab.cgroup.child("pod/mortal").expect("a cgroup");
    let id = std::os::unix::fs::MetadataExt::ino(&cgroup.metadata().expect("a cgroup"));
    let cookie = DoomedNetns::attached_at(&cgroup).end();
    // An attach that changes nothing for its own pod sweeps as well.
    let unchanged = lab.attach(STOCK).expect("attached again");
    assert!(unchanged.contains("same settings"), "{unchanged}");
    assert!(!is_kept(cookie));
    assert_eq!(pins::links_of_cgroup(id).expect("links"), NOTHING);
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
}

#[test]
fn a_deleted_namespace_is_swept_by_the_next_detach() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.attach(STOCK).expect("attached");
    let cookie = DoomedNetns::attached_at(lab.cgroup.path()).end();
    // Not even of a pod that was attached.
    let other = Lab::alone(&alone).expect("another lab");
    other.detach().expect("detached");
    assert!(!is_kept(cookie));
    assert!(!lab.traces().expect("traces").links.is_empty());
}

#[test]
fn nothing_is_left_of_a_deleted_last_namespace() {
    let alone = alone();
    let cgroup = Cgroup::new().expect("a cgroup");
    DoomedNetns::attached_at(cgroup.path()).end();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.detach().expect("detached");
    expect_nothing_left();
}

#[test]
fn all_deleted_namespaces_are_detached_with_all() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.attach(STOCK).expect("attached");
    DoomedNetns::attached_at(lab.cgroup.path()).end();
    stderr_of(bounded(interceptor::binary()).args(["detach", "--all"])).expect("detached");
    expect_nothing_left();
}
