//! Where we differ from Istio on purpose: its golden file, changed into what we want.

use serde_json::{Value, json};

use super::cases::Case;

/// The golden document with our differences.
pub(super) fn as_ours(golden: Value, case: &Case) -> Value {
    let golden = labels_of_cron_jobs(golden);
    match case.want.as_str() {
        "sidecar-spire.yaml.injected" => one_proxy(golden),
        "hello-existing-cncf-networks-json.yaml.injected" => split_network(golden),
        _ => golden,
    }
}

/// Whether a second injection of the result changes nothing even without our record of the first one.
/// One input is what an older Istio made, with other containers: its settings win the first time, as
/// in Istio, and are then no longer told apart from the template's.
pub(super) fn is_stable(case: &Case) -> bool {
    case.want != "merge-probers.yaml.injected"
}

/// Istio writes labels and annotations to the template of the Job, where no pod has them.
fn labels_of_cron_jobs(mut golden: Value) -> Value {
    if golden["kind"] == "CronJob" {
        let job = &mut golden["spec"]["jobTemplate"];
        let injected = job["metadata"].take();
        let template = &mut job["spec"]["template"]["metadata"];
        if template.is_null() {
            *template = json!({});
        }
        for (map, entries) in injected.as_object().into_iter().flatten() {
            for (key, value) in entries.as_object().into_iter().flatten() {
                template[map][key] = value.clone();
            }
        }
    }
    golden
}

/// Istio up to 1.22, and 1.24.0, wrote the namespace of a network into its name.
fn split_network(mut golden: Value) -> Value {
    let annotations = &mut golden["spec"]["template"]["metadata"]["annotations"];
    let networks = &mut annotations["k8s.v1.cni.cncf.io/networks"];
    let text = networks.as_str().unwrap();
    let (wrong, right) = (
        r#"{"name": "default/istio-cni"}"#,
        r#"{"name": "istio-cni", "namespace": "default"}"#,
    );
    *networks = json!(text.replace(wrong, right));
    golden
}

/// `object` without the status of its pod: Istio does not compare it on OpenShift, and the files of
/// some releases have an old one.
pub(super) fn without_status(mut object: Value) -> Value {
    let annotations = object.pointer_mut("/spec/template/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.shift_remove("sidecar.istio.io/status");
    }
    object
}

/// Istio makes a second istio-proxy of an overlay for it, without an image.
fn one_proxy(mut golden: Value) -> Value {
    let spec = &mut golden["spec"]["template"]["spec"];
    let containers = spec["containers"].as_array_mut().unwrap();
    let index = containers
        .iter()
        .position(|container| container["name"] == "istio-proxy");
    let second = containers.remove(index.unwrap());
    assert!(second["image"].is_null());
    let mounts = second["volumeMounts"].as_array().unwrap();
    let init = spec["initContainers"].as_array_mut().unwrap();
    let proxy = init
        .iter_mut()
        .find(|container| container["name"] == "istio-proxy");
    let proxy = proxy.unwrap();
    for mount in mounts {
        let own = proxy["volumeMounts"].as_array_mut().unwrap().iter_mut();
        let mut same = own.filter(|own| own["mountPath"] == mount["mountPath"]);
        *same.next().unwrap() = mount.clone();
    }
    let status =
        &mut golden["spec"]["template"]["metadata"]["annotations"]["sidecar.istio.io/status"];
    let text = status.as_str().unwrap();
    *status = json!(text.replace(r#""containers":["istio-proxy"]"#, r#""containers":null"#));
    golden
}
