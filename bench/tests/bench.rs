//! The benchmark measures what it claims to. No test depends on a speed.

use std::fs;

use interceptor_bench::{self as bench, Contestant, Options, Pod, Results, Scale, Workload, stock};
use interceptor_testkit::machine;

#[test]
fn every_contestant_does_what_it_claims() {
    let _shared = machine::shared().expect("the machine");
    for contestant in Contestant::ALL {
        let pod = Pod::new(contestant, &stock()).expect("a verified pod");
        let tracked = pod.tracked().expect("conntrack's count");
        assert_eq!(
            tracked > 0,
            contestant == Contestant::Iptables,
            "{contestant}: {tracked}"
        );
    }
}

/// Interceptor detached, rules flushed: no numbers may result.
#[test]
fn a_contestant_that_does_not_capture_fails() {
    let _shared = machine::shared().expect("the machine");
    let mut pod = Pod::new(Contestant::Interceptor, &stock()).expect("a pod");
    pod.stop_intercepting();
    let error = pod.verify().expect_err("nothing is captured");
    let text = format!("{error:#}");
    assert!(
        text.contains("10.2.0.9:80") || text.contains("ECONN"),
        "{text}"
    );
}

#[test]
fn a_run_writes_a_page_with_a_verdict_per_target() {
    let workloads = [Workload::Setup, Workload::Hooks];
    let options = Options {
        scale: Scale::smallest(),
        workloads: workloads.to_vec(),
    };
    let results = bench::run(&options, |_| Ok(())).expect("results");
    let dir = tempfile::tempdir().expect("a directory");
    bench::write(&results, dir.path()).expect("written");

    let json = fs::read(dir.path().join("results.json")).expect("JSON");
    let read: Results = serde_json::from_slice(&json).expect("the written results");
    assert_eq!(read.sections.len(), workloads.len());
    let page = fs::read_to_string(dir.path().join("README.md")).expect("a page");
    for target in &read.targets {
        assert!(page.contains(&target.what), "{}", target.what);
    }
    let chart = fs::read_to_string(dir.path().join("connect.svg")).expect("a chart");
    assert!(chart.starts_with("<svg") && chart.contains("interceptor"));
}

/// One destination, 500 ports: an interception has 500 for each destination.
#[test]
fn only_direct_connections_run_out_of_ports() {
    let options = Options {
        scale: Scale::smallest(),
        workloads: vec![Workload::Crowd],
    };
    let results = bench::run(&options, |_| Ok(())).expect("results");
    let row = &results.sections[0].rows[0];
    let open = |contestant: Contestant| row.value(contestant.name()).expect("a number").median;
    assert!(open(Contestant::Direct) <= 500.0);
    assert!(open(Contestant::Interceptor) > 3000.0);
}

#[test]
fn programs_of_strict_mode_run_for_its_pod_alone() {
    let options = Options {
        scale: Scale::smallest(),
        workloads: vec![Workload::Strict],
    };
    let results = bench::run(&options, |_| Ok(())).expect("results");
    for program in ["icept_leave", "icept_enter"] {
        let row = results.sections[0].row(&format!("{program}, runs in a turn"));
        let row = row.expect("a row");
        let runs = |name| row.value(name).expect("a number").median;
        assert!(runs("strict") > 0.0, "{program}");
        assert!(runs("not strict") < 1.0, "{program}");
    }
}

#[test]
fn injection_is_measured_without_errors() {
    let results = bench::injection::run(&bench::injection::Scale::smallest()).expect("results");
    let dir = tempfile::tempdir().expect("a directory");
    bench::injection::write(&results, dir.path()).expect("written");
    let page = fs::read_to_string(dir.path().join("README.md")).expect("a page");
    for target in &results.targets {
        assert!(page.contains(&target.what), "{}", target.what);
        let measured = target.measured.expect("a number").median;
        let is_count = target.what.contains("errors");
        assert!(!is_count || measured == 0.0, "{}: {measured}", target.what);
    }
}
