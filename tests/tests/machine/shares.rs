//! Every pod has its share of the stand-ins, whatever other pods do.

use std::{net::SocketAddr, path::Path};

use interceptor_ebpf::Share;
use interceptor_testkit::{
    cgroup::Cgroup,
    command::{bounded, run},
    dialler::{Dialler, Plan},
    interceptor,
    lab::{Caller, Lab, STOCK},
    netns::Netns,
    users::APP,
};
use serde_json::Value;

use crate::alone;

/// A pod without processes.
struct Bystander(Netns);

impl Bystander {
    fn attached(cgroup: &Cgroup, number: usize) -> Self {
        let pod = cgroup
            .child(&format!("bystander{number}"))
            .expect("a cgroup");
        let netns = Netns::new("bystander", Some(&pod)).expect("a network namespace");
        netns
            .ip("link add eth0 type veth peer name peer0\nlink set eth0 up\naddr add 10.1.0.3/24 dev eth0\n")
            .expect("an address");
        interceptor_run("attach", netns.path(), Some(cgroup.path()));
        Self(netns)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        interceptor_run("detach", self.0.path(), None);
    }
}

fn interceptor_run(verb: &str, netns: &Path, cgroup: Option<&Path>) {
    let mut command = bounded(interceptor::binary());
    command.arg(verb).arg("--netns").arg(netns);
    if let Some(cgroup) = cgroup {
        command.arg("--cgroup").arg(cgroup).args(STOCK);
    }
    run(&mut command, "").expect(verb);
}

/// The number of stand-ins, and of destinations with one, of a pod.
fn used(lab: &Lab) -> (usize, usize) {
    let entries = lab.leftovers().expect("entries");
    let count = |map: &str| {
        entries
            .iter()
            .filter(|entry| entry.starts_with(map))
            .count()
    };
    (count("icept_stand_ins"), count("icept_forward"))
}

/// The number of evicted stand-ins of a pod in `status`.
fn evicted(lab: &Lab) -> u64 {
    let text = run(lab.command("status").args(["-o", "json"]), "").expect("a status");
    let status: Value = serde_json::from_str(&text).expect("JSON");
    status[0]["evicted_stand_ins"].as_u64().expect("a number")
}

fn dial_many(lab: &Lab, first: &str, destinations: u32) {
    let plan = Plan {
        first: first.parse::<SocketAddr>().expect("an address"),
        destinations,
        rounds: 1,
    };
    let cgroup = lab.cgroup.child("pod/app").expect("a cgroup");
    let dialler = Dialler::start(APP, &lab.pod, &cgroup, &plan).expect("a dialler");
    let responses = dialler.finish().expect("outcomes");
    // Each reaches the proxy, with its original destination: none is refused because of a full
    // table.
    assert_eq!(responses.names(), ["proxy:15001"], "{responses:?}");
    assert_eq!(responses.dials(), destinations);
}

/// A pod that needs more than its share evicts its own oldest stand-ins, and returns its surplus
/// when more pods are attached.
#[test]
fn a_greedy_pod_evicts_no_stand_in_of_others() {
    const PODS: usize = 65;
    const MORE: u32 = 300;

    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let cgroup = Cgroup::new().expect("a cgroup");
    let mut bystanders: Vec<_> = (1..PODS)
        .map(|number| Bystander::attached(&cgroup, number))
        .collect();
    let share = Share::of(PODS.try_into().expect("a number")).stand_ins;
    let count = usize::try_from(share).expect("a number");
    dial_many(&lab, "10.64.0.0:80", share + MORE);
    assert_eq!(used(&lab), (count, count));
    assert_eq!(evicted(&lab), u64::from(MORE));
    // The newest are known, and evicted destinations get new ones.
    for to in ["10.64.0.0:80", "10.64.0.1:80"] {
        let response = lab.dial(Caller::App, to).expect("a dial");
        assert_eq!(response, format!("proxy:15001 for {to}"));
    }
    // Fewer pods have a larger share each.
    bystanders.truncate(PODS / 2 - 1);
    dial_many(&lab, "10.65.0.0:80", share);
    assert_eq!(used(&lab).0, 2 * count);
    bystanders.extend((PODS..=PODS + PODS / 2).map(|number| Bystander::attached(&cgroup, number)));
    assert_eq!(used(&lab), (count, count));
    dial_many(&lab, "10.66.0.0:80", MORE);
    lab.detach().expect("detached");
    assert_eq!(used(&lab), (0, 0));
}
