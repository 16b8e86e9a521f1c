//! Metrics of the application, which pilot-agent serves with those of the proxy.

use serde_json::{Value, json};

use super::{containers, mesh::Mesh, text};
use crate::{annotation_values, refusal::Problem};

/// The variable with what the pod's annotations were.
const VARIABLE: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// The variable and the annotation of the port with TLS.
const SECURE_PORT_VARIABLE: &str = "ENVOY_SECURE_MERGED_METRICS_PORT";
const SECURE_PORT: &str = "prometheus.istio.io/secure-port";
/// The annotation that decides for the pod.
const MERGE: &str = "prometheus.istio.io/merge-metrics";

/// Annotations as Prometheus writes their names in labels.
const SCRAPE: &str = "prometheus_io_scrape";
const PORT: &str = "prometheus_io_port";
const PATH: &str = "prometheus_io_path";
const TARGETS: &str = "prometheus_istio_io_scrape_targets";

/// Ports of the proxy, and what they are for.
const RESERVED: &[(i64, &str)] = &[
    (15000, "Envoy's administration"),
    (15001, "outbound traffic"),
    (15004, "debugging of istiod"),
    (15006, "inbound traffic"),
    (15008, "HBONE"),
    (15020, "the merged metrics"),
    (15021, "Envoy's health"),
    (15053, "DNS"),
    (15090, "Envoy's metrics"),
];

/// Points the annotations to pilot-agent, and passes it the place of the application's metrics.
pub(super) fn merge(pod: &mut Value, mesh: &Mesh) -> Result<(), Problem> {
    if is_scraped(pod) && is_merged(pod, mesh) {
        redirect(pod, mesh.proxy.status_port())?;
    }
    set_secure_port(pod);
    Ok(())
}

/// Removes the annotations if they are those of an earlier injection.
pub(super) fn strip(pod: &mut Value, mesh: &Mesh) {
    let port = mesh.proxy.status_port().to_string();
    if find(pod, PORT).is_some_and(|(_, value)| value == port) {
        remove_annotations(pod);
    }
}

fn redirect(pod: &mut Value, status_port: i64) -> Result<(), Problem> {
    let port = status_port.to_string();
    if find(pod, PORT).is_some_and(|(_, value)| value == port) {
        // By an earlier injection.
        return Ok(());
    }
    let configuration = configuration(pod, status_port)?;
    if let (Some(configuration), Some(proxy)) = (configuration, containers::sidecar_mut(pod)) {
        let variable = [(VARIABLE.to_owned(), text::json(&configuration))];
        containers::set_environment(proxy, &variable.into());
    }
    remove_annotations(pod);
    for (name, value) in [
        ("prometheus.io/path", "/stats/prometheus"),
        ("prometheus.io/port", &port),
        ("prometheus.io/scrape", "true"),
    ] {
        containers::set_metadata(pod, "annotations", name, value);
    }
    Ok(())
}

/// What the annotations say; none if there are none.
fn configuration(pod: &Value, status_port: i64) -> Result<Option<Value>, Problem> {
    let value = |key| find(pod, key).map(|(_, value)| value).unwrap_or_default();
    let (mut path, mut port) = (value(PATH).to_owned(), value(PORT).to_owned());
    let targets = targets(value(TARGETS)).unwrap_or_default();
    for (target, _) in &targets {
        check_port(pod, TARGETS, target, status_port)?;
    }
    match targets.first() {
        // For agents that do not know targets.
        Some((first_port, first_path)) => (port, path) = (first_port.clone(), first_path.clone()),
        None if !port.is_empty() => check_port(pod, PORT, &port, status_port)?,
        None => {}
    }
    let scrape = value(SCRAPE);
    if scrape.is_empty() && path.is_empty() && port.is_empty() {
        return Ok(None);
    }
    let mut configuration = json!({"scrape": scrape, "path": path, "port": port});
    if !targets.is_empty() {
        configuration["targets"] = targets
            .into_iter()
            .map(|(port, path)| json!({"port": port, "path": path}))
            .collect();
    }
    Ok(Some(configuration))
}

/// Ports with paths, from a list of `port:path`. None if a port is missing.
fn targets(list: &str) -> Option<Vec<(String, String)>> {
    let entries = list
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let (port, path) = entry.split_once(':').unwrap_or((entry, ""));
            let (port, path) = (port.trim(), path.trim());
            let path = if path.is_empty() { "/metrics" } else { path };
            (!port.is_empty()).then(|| (port.to_owned(), path.to_owned()))
        })
        .collect()
}

fn check_port(pod: &Value, key: &str, port: &str, status_port: i64) -> Result<(), Problem> {
    let number = port
        .parse()
        .ok()
        .filter(|number| (1..=65535).contains(number));
    let reserved = RESERVED
        .iter()
        .find(|(reserved, _)| Some(*reserved) == number);
    let problem = match (number, reserved) {
        (None, _) => format!("{port:?} is not a port: a number from 1 to 65535 is needed"),
        (Some(number), _) if number == status_port => {
            format!("port {port} is that of pilot-agent, which is not an application's")
        }
        (_, Some((_, purpose))) => format!("port {port} is the proxy's, for {purpose}"),
        _ => return Ok(()),
    };
    let (name, value) = find(pod, key).unwrap_or_default();
    Err(Problem::Annotation {
        name: name.to_owned(),
        value: value.to_owned(),
        problem,
    })
}

/// The annotation whose name is `key` in a label of Prometheus.
fn find<'a>(pod: &'a Value, key: &str) -> Option<(&'a str, &'a str)> {
    let annotations = pod["metadata"]["annotations"].as_object()?;
    let mut texts = annotations
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    texts.find(|(name, _)| label_name(name) == key)
}

fn label_name(name: &str) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || character == '_';
    name.chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .collect()
}

fn remove_annotations(pod: &mut Value) {
    let annotations = pod["metadata"]
        .get_mut("annotations")
        .and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        annotations
            .retain(|name, _| ![SCRAPE, PORT, PATH, TARGETS].contains(&label_name(name).as_str()));
    }
}

/// Whether no annotation forbids it.
fn is_scraped(pod: &Value) -> bool {
    let scrape = find(pod, SCRAPE).and_then(|(_, value)| annotation_values::bool(value));
    scrape.unwrap_or(true)
}

fn is_merged(pod: &Value, mesh: &Mesh) -> bool {
    let chosen = containers::annotation(pod, MERGE).and_then(annotation_values::bool);
    chosen.unwrap_or_else(|| mesh.merges_metrics())
}

fn set_secure_port(pod: &mut Value) {
    if find(pod, &label_name(SECURE_PORT)).is_some() {
        return;
    }
    let proxy = containers::find_any(pod, super::PROXY);
    let port = proxy.and_then(|proxy| containers::variable(proxy, SECURE_PORT_VARIABLE));
    let port = port
        .filter(|port| !["", "0"].contains(port))
        .map(str::to_owned);
    if let Some(port) = port {
        containers::set_metadata(pod, "annotations", SECURE_PORT, &port);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::proxy_config::ProxyConfig, *};

    fn pod(annotations: &Value) -> Value {
        let proxy =
            json!({"name": "istio-proxy", "env": [{"name": SECURE_PORT_VARIABLE, "value": "99"}]});
        json!({"metadata": {"annotations": annotations}, "spec": {"containers": [proxy]}})
    }

    fn merged(annotations: &Value) -> Result<(Value, Option<String>), Problem> {
        let mesh = Mesh::parse("", ProxyConfig::defaults()).unwrap();
        let mut pod = pod(annotations);
        merge(&mut pod, &mesh)?;
        let proxy = containers::find_any(&pod, "istio-proxy").unwrap();
        let variable = containers::variable(proxy, VARIABLE).map(str::to_owned);
        Ok((pod["metadata"]["annotations"].clone(), variable))
    }

    fn redirected() -> Value {
        json!({
            "prometheus.io/path": "/stats/prometheus", "prometheus.io/port": "15020",
            "prometheus.io/scrape": "true", SECURE_PORT: "99",
        })
    }

    #[test]
    fn annotations_become_a_variable() {
        let old = json!({"prometheus.io/port": "80", "prometheus-io/path": "/m", "prometheus.io.scrape": "t"});
        let (annotations, variable) = merged(&old).unwrap();
        assert_eq!(annotations, redirected());
        assert_eq!(
            variable.as_deref(),
            Some(r#"{"scrape":"t","path":"/m","port":"80"}"#)
        );
        let (annotations, variable) = merged(&json!({})).unwrap();
        assert_eq!((annotations, variable), (redirected(), None));
        let (annotations, variable) = merged(&redirected()).unwrap();
        assert_eq!((annotations, variable), (redirected(), None));
    }

    #[test]
    fn targets_are_listed() {
        let old = json!({"prometheus.istio.io/scrape-targets": "80:/a, 81,"});
        let expected = r#"{"scrape":"","path":"/a","port":"80","targets":[{"port":"80","path":"/a"},{"port":"81","path":"/metrics"}]}"#;
        assert_eq!(merged(&old).unwrap().1.as_deref(), Some(expected));
    }

    #[test]
    fn a_pod_can_decline() {
        for name in ["prometheus.io/scrape", MERGE] {
            let old = json!({name: "false", "prometheus.io/port": "x", SECURE_PORT: "1"});
            assert_eq!(merged(&old).unwrap(), (old, None));
        }
    }

    #[test]
    fn ports_of_the_proxy_are_refused() {
        for (name, value, part) in [
            ("prometheus.io/port", "15090", "metrics"),
            ("prometheus.io/port", "http", "65535"),
            (
                "prometheus.istio.io/scrape-targets",
                "80, 15020:/x",
                "pilot-agent",
            ),
        ] {
            let problem = merged(&json!({name: value})).unwrap_err().to_string();
            assert!(
                problem.contains(name) && problem.contains(part),
                "{problem}"
            );
        }
    }
}
