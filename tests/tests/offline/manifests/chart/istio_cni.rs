//! Values of istio-cni's chart: the same meaning, or a refusal with the way out.

use interceptor_testkit::helm;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, ServiceAccount},
};
use serde_json::{Value, json};

use super::{Rendered, rendered};
use crate::manifests::host_path;

const IMAGE: &str = "registry.example.org/interceptor:0.1.0";

pub(super) fn istios() -> Value {
    serde_saphyr::from_str(include_str!("istio-cni-values.yaml")).unwrap()
}

fn setting(rendered: &Rendered, key: &str) -> String {
    let settings: ConfigMap = rendered.only("ConfigMap");
    settings.data.unwrap()[key].clone()
}

/// `helm install --values values.yaml --set image=…`, for a cluster of kubeadm and one of GKE.
#[test]
fn istio_cnis_own_values_are_accepted() {
    for (platform, binaries) in [("", "/opt/cni/bin"), ("gke", "/home/kubernetes/bin")] {
        let mut values = istios();
        values["image"] = IMAGE.into();
        values["global"] = json!({"platform": platform});
        let rendered = rendered(values);
        assert_eq!(rendered.agent().image.unwrap(), IMAGE);
        let volumes = rendered.pod().volumes.unwrap();
        assert_eq!(host_path(&volumes, "cni-bin-dir"), binaries);
        // Values in which the defaults of the two charts differ.
        assert_eq!(rendered.pod().termination_grace_period_seconds, Some(30));
        assert_eq!(rendered.pod().tolerations.unwrap().len(), 3);
        let requests = rendered.agent().resources.unwrap().requests.unwrap();
        assert_eq!(requests["memory"].0, "100Mi");
        let context = rendered.agent().security_context.unwrap();
        assert_eq!(context.app_armor_profile, None);
    }
}

#[test]
fn values_of_istio_cni_mean_the_same() {
    let rendered = rendered(json!({
        "image": IMAGE,
        "hub": "docker.io/istio",
        "tag": "1.27.0",
        "pullPolicy": "Always",
        "excludeNamespaces": ["kube-system", "storage"],
        "cniConfFileName": "10-calico.conflist",
        "cniConfDir": "/etc/kubernetes/cni/net.d",
        "cniNetnsDir": "/run/docker/netns",
        "logging": {"level": "debug"},
        "repair": {"enabled": false},
        "daemonSetLabels": {"team": "mesh"},
        "podAnnotations": {"team": "mesh"},
        "podLabels": {"team": "mesh"},
        "affinity": {"nodeAffinity": {}},
        "env": {"START_JITTER": 5},
        "seccompProfile": {"type": "RuntimeDefault"},
        "seLinuxOptions": {"level": "s0"},
        "tolerations": [],
        "rollingMaxUnavailable": "10%",
        "resources": {"limits": {"memory": "1Gi"}},
        "global": {"logAsJson": true, "imagePullSecrets": ["registry"], "proxy": {"image": "x"}},
    }));
    for (key, expected) in [
        ("excludeNamespaces", "kube-system,storage"),
        ("cniConfFileName", "10-calico.conflist"),
        ("logging.level", "debug"),
        ("logAsJson", "true"),
        ("repair.enabled", "false"),
        ("imageRepositories", "registry.example.org/interceptor"),
    ] {
        assert_eq!(setting(&rendered, key), expected, "{key}");
    }
    let set: DaemonSet = rendered.only("DaemonSet");
    assert_eq!(set.metadata.labels.unwrap()["team"], "mesh");
    let spec = set.spec.unwrap();
    let update = serde_json::to_value(spec.update_strategy.unwrap()).unwrap();
    assert_eq!(update["rollingUpdate"]["maxUnavailable"], "10%");
    let template = spec.template.metadata.unwrap();
    assert_eq!(template.labels.unwrap()["team"], "mesh");
    assert_eq!(template.annotations.unwrap()["team"], "mesh");

    let pod = rendered.pod();
    assert_eq!(pod.tolerations, None);
    assert!(pod.affinity.unwrap().node_affinity.is_some());
    let volumes = pod.volumes.unwrap();
    assert_eq!(
        host_path(&volumes, "cni-net-dir"),
        "/etc/kubernetes/cni/net.d"
    );
    assert_eq!(host_path(&volumes, "netns"), "/run/docker/netns");

    let agent = rendered.agent();
    assert_eq!(agent.image_pull_policy.unwrap(), "Always");
    let jitter = agent
        .env
        .unwrap()
        .into_iter()
        .find(|one| one.name == "START_JITTER");
    assert_eq!(jitter.unwrap().value.unwrap(), "5");
    let context = agent.security_context.unwrap();
    assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
    let selinux = context.se_linux_options.unwrap();
    assert_eq!(
        (selinux.level.as_deref(), selinux.type_.as_deref()),
        (Some("s0"), Some("spc_t"))
    );
    assert_eq!(agent.resources.unwrap().limits.unwrap()["memory"].0, "1Gi");
    let account: ServiceAccount = rendered.only("ServiceAccount");
    assert_eq!(account.image_pull_secrets.unwrap()[0].name, "registry");
}

/// The order of Istio's charts: defaults, platform, user. Earlier releases had a prefix.
#[test]
fn the_users_values_precede_the_platforms() {
    for (values, expected) in [
        (json!({"global": {"platform": "openshift"}}), "false"),
        (json!({"platform": "openshift"}), "false"),
        (
            json!({"global": {"platform": "openshift"}, "chained": true}),
            "true",
        ),
        (
            json!({"platform": "openshift", "cni": {"chained": true}}),
            "true",
        ),
        (
            json!({"_internal_defaults_do_not_set": {"chained": false}}),
            "false",
        ),
        (
            json!({"_internal_defaults_do_not_set": {"chained": false}, "chained": true}),
            "true",
        ),
    ] {
        assert_eq!(
            setting(&rendered(values.clone()), "chained"),
            expected,
            "{values}"
        );
    }
}

/// Values, and what the refusal names: the value, and the way out.
fn refusals() -> Vec<(Value, [&'static str; 2])> {
    vec![
        (istios(), ["hub and tag name Istio's images", "set `image`"]),
        (
            json!({"global": {"tag": "1.27.0"}}),
            ["hub and tag", "set `image`"],
        ),
        (
            json!({"image": "docker.io/istio/install-cni:1.27.0"}),
            ["istio-cni's", "set `image`"],
        ),
        (
            json!({"image": "interceptor"}),
            ["without a registry or a tag", "set `image`"],
        ),
        (
            json!({"ambient": {"enabled": true}}),
            ["ambient", "Keep istio-cni"],
        ),
        (json!({"profile": "ambient"}), ["ambient", "Keep istio-cni"]),
        (
            json!({"profile": "openshift"}),
            ["\"openshift\" is unknown", "`global.platform`"],
        ),
        (
            json!({"platform": "gks"}),
            ["\"gks\"", "bottlerocket, eks, gke, k3d"],
        ),
        (
            json!({"istioOwnedCNIConfig": true}),
            ["istioOwnedCNIConfig", "Remove the value"],
        ),
        (
            json!({"cniConfFileName": "istio-cni.conf"}),
            ["istio-cni.conf", "remove the value"],
        ),
        (
            json!({"cniBinDir": ""}),
            ["cniBinDir is empty", "`global.platform`"],
        ),
        (
            json!({"repair": {"repairPods": false, "deletePods": true}}),
            [
                "repair.repairPods is false",
                "Set repair.repairPods to true",
            ],
        ),
        (
            json!({"logging": {"level": "cni:debug"}}),
            ["\"cni:debug\"", "Set logging.level"],
        ),
        (
            json!({"defaults": {"chained": false}}),
            ["`defaults`", "--set chained=false"],
        ),
        // The schema names the value and what is allowed.
        (json!({"chainde": false}), ["chainde", "not allowed"]),
        (
            json!({"failurePolicy": "fail"}),
            ["failurePolicy", "Ignore"],
        ),
        (
            json!({"webhook": {"replica": 1}}),
            ["replica", "not allowed"],
        ),
    ]
}

#[test]
fn what_cannot_mean_the_same_is_refused_with_the_way_out() {
    let refusals = refusals();
    let values: Vec<_> = refusals.iter().map(|(values, _)| values.clone()).collect();
    for (result, (values, expected)) in helm::render(&values).unwrap().into_iter().zip(refusals) {
        let error = result
            .err()
            .unwrap_or_else(|| panic!("{values} is accepted"))
            .to_string();
        for text in expected {
            assert!(error.contains(text), "{values}: {text}: {error}");
        }
    }
}

#[test]
fn all_refusals_are_reported_at_once() {
    let values = json!({"istioOwnedCNIConfig": true, "ambient": {"enabled": true}});
    let error = helm::render(&[values])
        .unwrap()
        .remove(0)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("istioOwnedCNIConfig") && error.contains("ambient"),
        "{error}"
    );
}
