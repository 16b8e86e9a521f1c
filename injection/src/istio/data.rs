//! What Istio's templates see: `SidecarTemplateData`.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use gotmpl::{ToValue as _, Value};
use serde_json::{Map, Value as Json};

use super::{context::Context, images, names, openshift::Ids};
use crate::owner;

/// Fields that are never missing in Go's structs, where templates use them.
const METADATA_TEXTS: &[&str] = &["Name", "GenerateName", "Namespace", "UID"];
const METADATA_MAPS: &[&str] = &["Labels", "Annotations"];
const SPEC_TEXTS: &[&str] = &[
    "DNSPolicy",
    "Hostname",
    "NodeName",
    "PriorityClassName",
    "RestartPolicy",
    "SchedulerName",
    "ServiceAccountName",
    "Subdomain",
];
const CONTAINER_TEXTS: &[&str] = &["Name", "Image", "ImagePullPolicy", "WorkingDir"];
const PORT_TEXTS: &[&str] = &["Name", "Protocol", "HostIP"];
const PORT_NUMBERS: &[&str] = &["ContainerPort", "HostPort"];

type Fields = BTreeMap<Arc<str>, Value>;

/// The data for `pod`, which has nothing that was injected before.
pub(super) fn of(pod: &Json, context: &Context<'_>) -> Value {
    let config = context.config;
    let options = &config.options;
    let owner = match &context.subject.owner {
        Some(owner) => Cow::Borrowed(owner),
        None => Cow::Owned(owner::of_pod(pod, &context.subject.namespace)),
    };
    let ids = Ids::of(&context.subject.namespace_annotations);
    let compliance = config.values["pilot"]["env"]["COMPLIANCE_POLICY"].as_str();
    gotmpl::tmap! {
        "TypeMeta" => gotmpl::tmap! {
            "APIVersion" => owner.api_version.as_str(),
            "Kind" => owner.kind.as_str(),
        },
        "DeploymentMeta" => gotmpl::tmap! {
            "Name" => owner.name.as_str(),
            "Namespace" => owner.namespace.as_str(),
        },
        "ObjectMeta" => metadata(pod, &context.subject.namespace),
        "Spec" => spec(pod),
        "ProxyConfig" => context.proxy_config.for_templates(),
        "MeshConfig" => config.mesh.for_templates.clone(),
        "Values" => config.values_for_templates.clone(),
        "Revision" => options.revision.as_str(),
        "NativeSidecars" => options.native_sidecar,
        "ProxyImage" => images::proxy(&config.values, pod, context.proxy_config),
        "ProxyInitImage" => images::init(&config.values, pod),
        "ProxyUID" => i64::from(ids.user),
        "ProxyGID" => i64::from(ids.group),
        "InboundTrafficPolicyMode" => config.mesh.inbound_traffic_policy_mode(),
        "CompliancePolicy" => compliance.unwrap_or_default(),
    }
}

fn fields(object: &Json) -> Fields {
    object
        .as_object()
        .map_or_else(|| names::structure(&Map::new()), names::structure)
}

fn metadata(pod: &Json, namespace: &str) -> Value {
    let mut metadata = fields(&pod["metadata"]);
    if !metadata.contains_key("Namespace") {
        metadata.insert("Namespace".into(), namespace.to_value());
    }
    complete(&mut metadata, METADATA_TEXTS, &"".to_value());
    complete(&mut metadata, METADATA_MAPS, &Value::Map(Arc::default()));
    Value::Map(Arc::new(metadata))
}

fn spec(pod: &Json) -> Value {
    let mut spec = fields(&pod["spec"]);
    complete(&mut spec, SPEC_TEXTS, &"".to_value());
    for list in ["Containers", "InitContainers"] {
        let completed = match spec.get(list) {
            Some(Value::List(containers)) => containers.iter().map(container).collect(),
            _ => Vec::new(),
        };
        spec.insert(list.into(), Value::List(completed.into()));
    }
    Value::Map(Arc::new(spec))
}

fn container(container: &Value) -> Value {
    let mut fields = match container {
        Value::Map(fields) => (**fields).clone(),
        _ => Fields::new(),
    };
    complete(&mut fields, CONTAINER_TEXTS, &"".to_value());
    if let Some(Value::List(ports)) = fields.get("Ports") {
        let ports: Vec<_> = ports.iter().map(port).collect();
        fields.insert("Ports".into(), Value::List(ports.into()));
    }
    Value::Map(Arc::new(fields))
}

fn port(port: &Value) -> Value {
    let Value::Map(fields) = port else {
        return port.clone();
    };
    let mut fields = (**fields).clone();
    complete(&mut fields, PORT_TEXTS, &"".to_value());
    complete(&mut fields, PORT_NUMBERS, &Value::Int(0));
    Value::Map(Arc::new(fields))
}

/// Adds fields that are missing.
fn complete(fields: &mut Fields, names: &[&str], zero: &Value) {
    for name in names {
        if !fields.contains_key(*name) {
            fields.insert((*name).into(), zero.clone());
        }
    }
}
