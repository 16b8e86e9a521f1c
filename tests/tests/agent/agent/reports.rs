//! The agent's probes, metrics and Events are correct, and its permissions suffice.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    thread,
    time::Duration,
};

use anyhow::Result;
use interceptor_testkit::{
    bpf::maps::Map,
    lab::{cookie, wait_until},
    manifests,
};

use super::{new_node, of_mesh, until_captured};

#[test]
fn it_is_ready_with_a_pod_list_and_an_installed_plugin() {
    let node = new_node();
    node.api.set_unavailable(true);
    let mut agent = node.start_agent(&[]).expect("an agent");
    let responds = wait_until("a response", || Ok(agent.get("/healthz").is_ok()));
    responds.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    let (status, why) = agent.get("/readyz").expect("a response");
    assert_eq!(status, 503, "{why}");
    node.api.set_unavailable(false);
    agent.wait_until_ready().expect("ready");
    assert_eq!(agent.get("/healthz").expect("a response").0, 200);
}

#[test]
fn metrics_match_what_happened() {
    let node = new_node();
    let there = node.run(of_mesh(&node, "there")).expect("a pod");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    until_captured(&there, || agent.log());
    let _new = node.run(of_mesh(&node, "new")).expect("a pod");
    for (name, expected) in [
        (r#"interceptor_pods{state="captured"}"#, 2.0),
        (
            r#"interceptor_cni_requests_total{verb="add",result="captured"}"#,
            1.0,
        ),
        (r#"interceptor_repairs_total{result="success"}"#, 1.0),
        ("interceptor_attach_duration_seconds_count", 2.0),
        ("interceptor_cni_install_ready", 1.0),
        ("istio_cni_install_ready", 1.0),
    ] {
        let found = wait_until(name, || Ok(agent.metric(name)? == Some(expected)));
        found.unwrap_or_else(|error| {
            let text = agent
                .get("/metrics")
                .map(|(_, text)| text)
                .unwrap_or_default();
            panic!("{error}\n{text}")
        });
    }
}

/// The test writes the BPF programs' counter itself, as a pod would need long to use more than its
/// share.
#[test]
fn metrics_name_the_pod_that_uses_more_than_its_share() {
    const SERIES: &str = "interceptor_stand_ins_evicted_total";
    const EVICTED: u64 = 7;

    let node = new_node();
    let run = |name| node.run(of_mesh(&node, name)).expect("a pod");
    let (greedy, modest) = (run("greedy"), run("modest"));
    let agent = node.start_ready_agent(&[]).expect("an agent");
    for pod in [&greedy, &modest] {
        until_captured(pod, || agent.log());
    }
    let key = cookie(greedy.netns().expect("a netns")).expect("a cookie");
    let usage = Map::of_interceptor("icept_usage")
        .expect("a map")
        .expect("a map");
    let mut value = usage
        .get(&key.to_ne_bytes())
        .expect("read")
        .expect("an entry");
    value[8..].copy_from_slice(&EVICTED.to_ne_bytes());
    usage.set(&key.to_ne_bytes(), &value).expect("written");
    let labels = format!(
        "namespace=\"{}\",pod=\"greedy\"",
        of_mesh(&node, "greedy").namespace
    );
    let expected = [format!("{SERIES}{{{labels}}} {EVICTED}")];
    let series = || -> Result<Vec<_>> {
        let (_, text) = agent.get("/metrics")?;
        let series = text.lines().filter(|line| line.starts_with(SERIES));
        Ok(series.map(str::to_owned).collect())
    };
    // The agent records a capture after the pod is captured.
    let found = wait_until(SERIES, || Ok(series()? == expected));
    found.unwrap_or_else(|error| panic!("{error}: {:?}", series()));
}

#[test]
fn only_a_repair_publishes_an_event() {
    let node = new_node();
    let there = node.run(of_mesh(&node, "there")).expect("a pod");
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    until_captured(&there, || agent.log());
    let events = |pod: &str| node.api.events_about(pod);
    let found = wait_until("an Event", || Ok(!events("there").is_empty()));
    found.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    let new = node.run(of_mesh(&node, "new")).expect("a pod");
    // Another agent has nothing to repair.
    agent.kill().expect("killed");
    let again = node.start_ready_agent(&[]).expect("an agent");
    until_captured(&new, || again.log());
    let events = ["there", "new"].map(events);
    assert_eq!(events[0].len(), 1, "{events:#?}");
    assert_eq!(events[0][0]["reason"], "Repaired", "{events:#?}");
    assert_eq!(events[0][0]["type"], "Normal", "{events:#?}");
    assert!(events[1].is_empty(), "{events:#?}");
}

/// Other processes may hold the machine's lock for long: `status`, another agent, an upgrade.
#[test]
fn the_attach_duration_excludes_the_wait_for_the_lock() {
    const HELD: Duration = Duration::from_secs(8);
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    // The first attach loads the programs.
    let _first = node.run(of_mesh(&node, "first")).expect("a pod");
    let sum = || agent.metric("interceptor_attach_duration_seconds_sum");
    let before = sum().expect("the metrics").expect("a sum");
    let bpffs = File::open("/sys/fs/bpf").expect("the bpffs");
    bpffs.lock().expect("the machine's lock");
    let second = thread::scope(|scope| {
        let second = scope.spawn(|| node.run(of_mesh(&node, "second")));
        thread::sleep(HELD);
        assert!(!second.is_finished(), "it has not waited");
        bpffs.unlock().expect("unlocked");
        second.join().expect("the test's own thread")
    });
    let _second = second.expect("a pod");
    let count = agent.metric("interceptor_attach_duration_seconds_count");
    assert_eq!(count.expect("the metrics"), Some(2.0));
    let took = sum().expect("the metrics").expect("a sum") - before;
    assert!(took < HELD.as_secs_f64() / 2.0, "{took} s");
}

/// The API server enforces the deployed roles, and records refused requests.
#[test]
fn it_makes_no_request_without_permission() {
    let node = new_node();
    let mut agent = node.start_ready_agent(&["--taint"]).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    until_captured(&pod, || agent.log());
    node.delete(pod).expect("deleted");
    agent.terminate().expect("it exits");
    let refused = node.api.refused();
    assert!(refused.is_empty(), "{refused:#?}");
    let recorded = node.api.recorded();
    let foreign = recorded.iter().filter(|request| {
        request.path == "/api/v1/pods" && !request.query.contains("spec.nodeName")
    });
    assert_eq!(foreign.count(), 0, "{recorded:#?}");
}

/// Every agent in these tests has the deployed capabilities. On some nodes the CNI directories belong
/// to another user than root.
#[test]
fn it_installs_into_another_users_directories() {
    let node = new_node();
    for dir in [&node.runtime.conf, &node.runtime.bin] {
        fs::set_permissions(dir, Permissions::from_mode(0o700)).expect("permissions");
        chown(dir, Some(1000), Some(1000)).expect("an owner");
    }
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("a process");
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.map(|set| u64::from_str_radix(set.trim(), 16));
    // DAC_OVERRIDE, NET_ADMIN, SYS_PTRACE, SYS_ADMIN, PERFMON, BPF
    let few = [1, 12, 19, 21, 38, 39].map(|bit| 1 << bit);
    assert_eq!(capabilities, Some(Ok(few.iter().sum())), "{status}");
    let plugins = || node.runtime.plugins().expect("plugins");
    assert_eq!(plugins(), ["ptp", "interceptor-cni"]);
    let set = manifests::only(manifests::base().expect("a base"), "DaemonSet");
    node.api.delete(set.expect("one")).expect("deleted");
    agent.terminate().expect("it exits");
    let is_uninstalled = node.runtime.is_uninstalled().expect("plugins");
    assert!(is_uninstalled, "{}", agent.log());
}
