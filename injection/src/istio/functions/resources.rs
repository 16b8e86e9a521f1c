//! Istio's functions that know pods and the mesh.

use gotmpl::Value;

use super::{Function, Result, entries, exactly, sprint, string};
use crate::istio::PROXY;

pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("applicationPorts", application_ports),
    ("includeInboundPorts", include_inbound_ports),
    ("otelResourceAttributes", otel_resource_attributes),
];

fn text(value: &Value, field: &str) -> String {
    value.field(field).map(sprint).unwrap_or_default()
}

fn application_ports(arguments: &[Value]) -> Result {
    let [containers] = exactly(arguments)?;
    let containers = entries(containers)?.iter();
    ports(
        &containers
            .filter(|container| text(container, "Name") != PROXY)
            .collect::<Vec<_>>(),
    )
}

fn include_inbound_ports(arguments: &[Value]) -> Result {
    let [containers] = exactly(arguments)?;
    ports(&entries(containers)?.iter().collect::<Vec<_>>())
}

/// The TCP ports of the containers.
fn ports(containers: &[&Value]) -> Result {
    let mut ports = Vec::new();
    for container in containers {
        for port in entries(container.field("Ports").unwrap_or(&Value::Nil))? {
            if !["UDP", "SCTP"].contains(&text(port, "Protocol").as_str()) {
                ports.push(text(port, "ContainerPort"));
            }
        }
    }
    string(ports.join(","))
}

/// The variable `OTEL_RESOURCE_ATTRIBUTES`, if a provider of the mesh wants its semantic
/// conventions.
fn otel_resource_attributes(arguments: &[Value]) -> Result {
    let [mesh, annotations, labels, namespace, containers] = exactly(arguments)?;
    let providers = mesh.field("ExtensionProviders").unwrap_or(&Value::Nil);
    let enriches = |provider: &Value| {
        let telemetry = provider.field("Opentelemetry");
        let enrichment = telemetry.map(|otel| text(otel, "ServiceAttributeEnrichment"));
        enrichment.as_deref() == Some("OTEL_SEMANTIC_CONVENTIONS")
    };
    if !entries(providers)?.iter().any(enriches) {
        return string("");
    }
    let set = |attribute: &str| {
        Some(text(
            annotations,
            &format!("resource.opentelemetry.io/{attribute}"),
        ))
        .filter(|value| !value.is_empty())
    };
    let namespace = sprint(namespace);
    let containers = entries(containers)?;
    let service_namespace =
        set("service.namespace").or_else(|| Some(namespace.clone()).filter(|n| !n.is_empty()));
    let version = set("service.version")
        .or_else(|| Some(text(labels, "app.kubernetes.io/version")).filter(|v| !v.is_empty()))
        .or_else(|| match containers {
            [container] => image_version(&text(container, "Image")),
            _ => None,
        });
    let instance = set("service.instance.id").or_else(|| {
        let container = text(containers.first()?, "Name");
        Some(format!("{namespace}.$(POD_NAME).{container}"))
    });
    let attributes = [
        ("service.namespace", service_namespace),
        ("service.version", version),
        ("service.instance.id", instance),
    ];
    let attributes: Vec<_> = attributes
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
        .collect();
    string(attributes.join(","))
}

/// The tag, the digest or both of an image.
fn image_version(image: &str) -> Option<String> {
    let (image, digest) = match image.split_once('@') {
        Some((image, digest)) => (image, Some(digest).filter(|digest| !digest.is_empty())),
        None => (image, None),
    };
    let name = image.rsplit('/').next().unwrap_or(image);
    let tag = name.rsplit_once(':').map(|(_, tag)| tag);
    match (tag.filter(|tag| !tag.is_empty()), digest) {
        (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
        (tag, digest) => tag.or(digest).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_an_image_is_its_tag_and_digest() {
        for (image, version) in [
            ("nginx:1.21", Some("1.21")),
            ("nginx@sha256:abc", Some("sha256:abc")),
            ("nginx:1.21@sha256:abc", Some("1.21@sha256:abc")),
            ("registry:5000/nginx", None),
            ("registry:5000/nginx:1", Some("1")),
        ] {
            assert_eq!(image_version(image).as_deref(), version, "{image}");
        }
    }
}
