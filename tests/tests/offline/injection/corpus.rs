//! A checkout of Istio: its goldens, and its ConfigMaps, put together as its chart does it.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use interceptor_injection::istio::{Config, Options, Sources};
use serde_json::{Map, Value, json};

use super::cases::Case;

/// A checkout.
pub(super) struct Corpus(PathBuf);

const CHART: &str = "manifests/charts/istio-control/istio-discovery";
const GOLDENS: &str = "pkg/kube/inject/testdata/inject";

/// Templates of the chart, and their files.
const TEMPLATES: [(&str, &str); 8] = [
    ("sidecar", "injection-template"),
    ("gateway", "gateway-injection-template"),
    ("grpc-simple", "grpc-simple"),
    ("grpc-agent", "grpc-agent"),
    ("waypoint", "waypoint"),
    ("kube-gateway", "kube-gateway"),
    ("agentgateway", "agentgateway"),
    ("agentgateway-waypoint", "agentgateway-waypoint"),
];

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

impl Corpus {
    pub(super) fn from_environment() -> Option<Self> {
        let directory = PathBuf::from(env::var_os("ISTIO_DIR")?);
        directory.join(GOLDENS).is_dir().then_some(Self(directory))
    }

    fn read(&self, directory: &str, name: &str) -> String {
        let path = Path::new(&self.0).join(directory).join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The inputs and the golden files.
    pub(super) fn files(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.0.join(GOLDENS)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    /// The documents of an input or a golden file.
    pub(super) fn documents(&self, name: &str) -> Vec<Value> {
        let text = self.read(GOLDENS, name);
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        documents
            .into_iter()
            .filter(|document| !document.is_null())
            .collect()
    }

    pub(super) fn config(&self, case: &Case) -> Config {
        self.config_with(case, Options::default())
    }

    pub(super) fn config_with(&self, case: &Case, options: Options) -> Config {
        let inject = json!({"policy": "enabled", "templates": self.templates(&self.values(case))});
        let mut mesh = yaml(
            "{trustDomain: cluster.local, rootNamespace: istio-system, enablePrometheusMerge: true, \
             defaultConfig: {discoveryAddress: 'istiod.istio-system.svc:15012'}}",
        );
        let values = self.values(case);
        if values["global"]["proxy"]["tracer"] == "zipkin" {
            // The default up to 1.21.
            let zipkin =
                yaml("defaultConfig: {tracing: {zipkin: {address: 'zipkin.istio-system:9411'}}}");
            merge(&mut mesh, zipkin);
        }
        if !case.mesh.is_empty() {
            change_mesh(&mut mesh, yaml(case.mesh));
        }
        let scoped = scoped(&values).to_string();
        let sources = Sources {
            inject: &inject.to_string(),
            values: &scoped,
            mesh: &mesh.to_string(),
        };
        let options = Options {
            native_sidecar: case.native.unwrap_or_else(|| self.is_native_by_default()),
            check: interceptor::agent::policy::check_annotation,
            ..options
        };
        Config::load(&sources, options).unwrap()
    }

    /// Since 1.27, which has a golden file for clusters without native sidecars.
    fn is_native_by_default(&self) -> bool {
        self.0
            .join(GOLDENS)
            .join("hello-old-version.yaml.injected")
            .is_file()
    }

    fn templates(&self, values: &Value) -> Value {
        let mut templates = Map::new();
        for (name, file) in TEMPLATES {
            let path = format!("{CHART}/files/{file}.yaml");
            if self.0.join(&path).is_file() {
                templates.insert(name.to_owned(), self.read("", &path).trim().into());
            }
        }
        let own = values["sidecarInjectorWebhook"]["templates"].as_object();
        templates.extend(own.cloned().unwrap_or_default());
        templates.into()
    }

    /// The chart's values with the case's settings.
    fn values(&self, case: &Case) -> Value {
        let mut values = yaml(&self.read(CHART, "values.yaml"));
        for inner in ["_internal_defaults_do_not_set", "defaults"] {
            if values[inner].is_object() {
                values = values[inner].take();
            }
        }
        if let Some(operator) = case.operator {
            let operator = yaml(&self.read(GOLDENS, operator));
            merge(&mut values, operator["spec"]["values"].clone());
        }
        for setting in case.set {
            let (path, value) = setting.split_once('=').unwrap();
            let path = path.replace("components.cni", "values.pilot.cni");
            let path = path.strip_prefix("values.").unwrap();
            let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
            let keys = path.rsplit('.');
            merge(
                &mut values,
                keys.fold(value, |value, key| json!({key: value})),
            );
        }
        if values["istio_cni"].is_object() {
            merge(&mut values, old_cni(case));
        }
        // The chart takes what is below `pilot` for its own.
        let pilot = values["pilot"].take();
        if pilot.is_object() {
            merge(&mut values, pilot);
        }
        values
    }
}

/// Replaces fields of the mesh configuration, and of its `defaultConfig`.
fn change_mesh(mesh: &mut Value, change: Value) {
    let Value::Object(change) = change else {
        return;
    };
    for (key, value) in change {
        match value {
            Value::Object(fields) if key == "defaultConfig" => {
                for (key, value) in fields {
                    mesh["defaultConfig"][key] = value;
                }
            }
            value => mesh[key] = value,
        }
    }
}

/// The settings of istio-cni, as charts up to 1.23 have them.
fn old_cni(case: &Case) -> Value {
    let is_set = |setting: &str| case.set.contains(&setting);
    let mut cni = json!({"enabled": is_set("components.cni.enabled=true")});
    if is_set("values.cni.provider=multus") {
        merge(&mut cni, json!({"provider": "multus", "chained": false}));
    }
    json!({"istio_cni": cni})
}

/// The part of the values that the ConfigMap has.
fn scoped(values: &Value) -> Value {
    let keys = ["global", "sidecarInjectorWebhook", "revision", "istio_cni"];
    let entries = keys
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), values.get(key)?.clone())));
    let mut scoped: Map<String, Value> = entries.collect();
    // Since 1.24.
    if !scoped.contains_key("istio_cni") {
        let pilot = json!({"cni": values["cni"], "env": values["env"]});
        scoped.insert("pilot".to_owned(), pilot);
    }
    scoped.into()
}

/// Merges values as Helm does: maps by their keys, anything else is replaced.
fn merge(target: &mut Value, change: Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            for (key, value) in change {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, change) => *target = change,
    }
}
