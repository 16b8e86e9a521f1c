//! The values, and the platforms that set them.

use std::collections::BTreeMap;

use interceptor_testkit::interceptor;
use k8s_openapi::api::{apps::v1::DaemonSet, batch::v1::Job, core::v1::ConfigMap};

use super::{Rendered, host_path};

fn values(rendered: &Rendered) -> BTreeMap<String, String> {
    rendered.only::<ConfigMap>("ConfigMap").data.unwrap()
}

/// The values that the agent's container reads, and whether each is optional.
fn read(rendered: &Rendered) -> BTreeMap<String, bool> {
    let references = rendered.agent().env.unwrap().into_iter();
    references
        .filter_map(|variable| variable.value_from?.config_map_key_ref)
        .map(|reference| (reference.key, reference.optional == Some(true)))
        .collect()
}

/// A value that nothing reads would be a setting without effect.
#[test]
fn every_value_reaches_the_agent() {
    for rendered in Rendered::platforms() {
        let read = read(rendered);
        for value in values(rendered).keys() {
            assert!(read.contains_key(value), "{}: {value}", rendered.dir);
        }
    }
}

#[test]
fn every_required_value_exists() {
    for rendered in Rendered::platforms() {
        let values = values(rendered);
        for (value, optional) in read(rendered) {
            let there = values.contains_key(&value);
            assert!(there || optional, "{}: {value}", rendered.dir);
        }
    }
}

/// kubelet requests a mutable `ConfigMap` from the API server at each start of a container, and an
/// agent that restarts during an outage would wait for its end (`CreateContainerConfigError`).
#[test]
fn an_agent_starts_without_the_api_server() {
    let examples = ["examples/taint", "examples/live-annotations"].map(Rendered::of);
    for rendered in Rendered::platforms().iter().chain(&examples) {
        let values: ConfigMap = rendered.only("ConfigMap");
        assert_eq!(values.immutable, Some(true), "{}", rendered.dir);
        let variables = rendered.agent().env.unwrap().into_iter();
        for source in variables.filter_map(|variable| variable.value_from) {
            let is_secret = source.secret_key_ref.is_some();
            assert!(!is_secret, "{}: a mutable Secret", rendered.dir);
        }
        assert_eq!(rendered.agent().env_from, None, "{}", rendered.dir);
    }
}

fn known_variables(command: &[&str]) -> String {
    let output = interceptor::try_run(command.iter().chain(&["--help"])).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_agent_reads_every_variable() {
    let help = known_variables(&["agent"]);
    for rendered in Rendered::platforms() {
        for variable in rendered.agent().env.unwrap() {
            let shown = format!("[env: {}=", variable.name);
            assert!(help.contains(&shown), "{}: {help}", variable.name);
        }
    }
}

#[test]
fn uninstall_reads_every_variable() {
    let help = known_variables(&["uninstall"]);
    let job: Job = Rendered::of("examples/uninstall").only("Job");
    let pod = job.spec.unwrap().template.spec.unwrap();
    for variable in pod.containers[0].env.iter().flatten() {
        let shown = format!("[env: {}=", variable.name);
        assert!(help.contains(&shown), "{}: {help}", variable.name);
    }
}

/// And no other: a value that requires a privilege is set where the privilege is granted.
#[test]
fn a_component_sets_its_value() {
    for (example, value) in [
        ("examples/taint", "taint.enabled"),
        ("examples/live-annotations", "liveAnnotations"),
    ] {
        let mut expected = values(Rendered::base());
        expected.insert(value.to_owned(), "true".to_owned());
        assert_eq!(values(&Rendered::of(example)), expected, "{example}");
    }
}

/// The directories of plugins and their configuration on each platform: those of Istio's profiles,
/// and k3s' new directory of plugins.
#[test]
fn every_platform_sets_its_directories() {
    let mut found = BTreeMap::new();
    for rendered in Rendered::platforms() {
        let volumes = rendered.pod().volumes.unwrap();
        let path = |name| host_path(&volumes, name).to_owned();
        let paths = [path("cni-bin-dir"), path("cni-net-dir"), path("netns")];
        found.insert(rendered.dir.clone(), paths);
    }
    let expected = [
        ("base", "/opt/cni/bin", "/etc/cni/net.d"),
        ("overlays/bottlerocket", "/opt/cni/bin", "/etc/cni/net.d"),
        ("overlays/eks", "/opt/cni/bin", "/etc/cni/net.d"),
        ("overlays/gke", "/home/kubernetes/bin", "/etc/cni/net.d"),
        (
            "overlays/k3d",
            "/var/lib/rancher/k3s/data/cni",
            "/var/lib/rancher/k3s/agent/etc/cni/net.d",
        ),
        (
            "overlays/k3s",
            "/var/lib/rancher/k3s/data/cni",
            "/var/lib/rancher/k3s/agent/etc/cni/net.d",
        ),
        ("overlays/kind", "/opt/cni/bin", "/etc/cni/net.d"),
        (
            "overlays/microk8s",
            "/var/snap/microk8s/current/opt/cni/bin",
            "/var/snap/microk8s/current/args/cni-network",
        ),
        ("overlays/minikube", "/opt/cni/bin", "/etc/cni/net.d"),
        (
            "overlays/openshift",
            "/var/lib/cni/bin",
            "/etc/cni/multus/net.d",
        ),
    ];
    let expected = expected.map(|(dir, binaries, configuration)| {
        let netns = match dir {
            "overlays/minikube" => "/var/run/docker/netns",
            _ => "/var/run/netns",
        };
        (
            dir.to_owned(),
            [binaries, configuration, netns].map(str::to_owned),
        )
    });
    assert_eq!(found, BTreeMap::from(expected));
}

/// Values that only some nodes need, and the base does not set.
#[test]
fn overlays_set_the_values_of_their_nodes() {
    for rendered in Rendered::platforms() {
        let set: DaemonSet = rendered.only("DaemonSet");
        let pod = set.spec.unwrap().template.spec.unwrap();
        let env = pod.containers[0].env.clone().unwrap_or_default();
        let value = |name: &str| {
            let variable = env.iter().find(|variable| variable.name == name);
            variable.and_then(|variable| variable.value.clone())
        };
        let is_container = ["overlays/kind", "overlays/k3d"].contains(&rendered.dir.as_str());
        let root = is_container.then(|| "/sys/fs/cgroup".to_owned());
        assert_eq!(value("CGROUP_ROOT"), root, "{}", rendered.dir);
        let keeps = (rendered.dir == "overlays/openshift").then(|| "true".to_owned());
        assert_eq!(value("KEEP_CNI_PLUGIN"), keeps, "{}", rendered.dir);
    }
}
