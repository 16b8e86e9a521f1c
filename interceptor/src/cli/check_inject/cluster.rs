//! What is read from the cluster.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use interceptor_injection::{
    check::{Behavior, Injector, Namespace},
    decision::{
        Rules,
        selector::Selector,
        webhooks::{self, Configuration},
    },
    workloads,
};
use kube::{
    Client,
    api::{GetParams, ListParams},
    core::Request,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Found, Target, builtin_sidecar};
use crate::{
    api_server,
    sidecar::{Access, ConfigMapName, config_map},
    stdio::message,
};

/// Limit of one request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The names of our webhooks end with this.
const OWN_WEBHOOKS: &str = ".injector.interceptor.dev";

/// The API server. Objects are raw: fields that are newer than our types matter.
pub(super) struct Cluster {
    client: Client,
    /// That of the kubeconfig's context.
    pub(super) default_namespace: String,
}

impl Cluster {
    pub(super) async fn connect(access: &Access) -> Result<Self> {
        let config = access.config().await.context(
            "cannot read the cluster's webhooks (with -f or -l, --namespace-labels needs no cluster)",
        )?;
        let default_namespace = config.default_namespace.clone();
        Ok(Self {
            client: api_server::client(config)?,
            default_namespace,
        })
    }

    /// An object at a path such as `/api/v1/namespaces/shop/pods`.
    async fn get(&self, path: &str, name: &str) -> Result<Value> {
        let request = Request::new(path).get(name, &GetParams::default())?;
        let call = api_server::request(TIMEOUT, self.client.request(request));
        call.await.map_err(|problem| anyhow!(problem))
    }

    async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let request = Request::new(path).list(&ListParams::default())?;
        let call = api_server::request(TIMEOUT, self.client.request::<Value>(request));
        let mut list = call.await.map_err(|problem| anyhow!(problem))?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => bail!("the API server's list of {path} has no items"),
        }
    }

    /// The pod; of a workload its newest pod, or its template if it has none.
    pub(super) async fn find(&self, target: &Target, namespace: Option<&str>) -> Result<Found> {
        let namespace = match (target.namespace.as_deref(), namespace) {
            (Some(named), Some(given)) if named != given => bail!(
                "the name is in namespace {named:?}, and --namespace is {given:?}: remove one of them"
            ),
            (named, given) => named.or(given).unwrap_or(&self.default_namespace),
        };
        let (kind, name) = (target.kind, &target.name);
        let path = format!("{}/namespaces/{namespace}/{}", kind.group, kind.plural);
        let object = self.get(&path, name).await;
        let object = object.with_context(|| {
            format!("cannot get {}/{name} in namespace {namespace:?}", kind.name)
        })?;
        let found = |object: String, pod: Value, exists: bool| Found {
            object,
            file: None,
            namespace: namespace.to_owned(),
            pod,
            exists,
            owner: None,
        };
        let object_name = format!("{}/{name}", kind.name);
        if kind.is_pod() {
            return Ok(found(object_name, object, true));
        }
        if let Some(pod) = self
            .newest_pod(namespace, &object["spec"]["selector"])
            .await?
        {
            let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
            return Ok(found(format!("pod/{pod_name} of {object_name}"), pod, true));
        }
        let workload = workloads::of(&object).into_iter().next();
        let workload = workload.with_context(|| format!("{object_name} has no pod template"))?;
        let template = object.pointer(&workload.pointer).cloned();
        Ok(Found {
            owner: Some(workload.owner),
            ..found(object_name, template.unwrap_or_default(), false)
        })
    }

    async fn newest_pod(&self, namespace: &str, selector: &Value) -> Result<Option<Value>> {
        let Some(selector) = pod_selector(selector)? else {
            return Ok(None);
        };
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let problem = || format!("cannot list the pods of namespace {namespace:?}");
        let pods = self.list(&path).await.with_context(problem)?;
        let selected = pods.into_iter().filter(|pod| {
            let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
            let labels = labels.filter_map(|(key, value)| Some((&**key, value.as_str()?)));
            selector.matches(&labels.collect())
        });
        // Times of one format, in UTC.
        Ok(selected.max_by_key(|pod| {
            let created = pod["metadata"]["creationTimestamp"].as_str();
            created.unwrap_or_default().to_owned()
        }))
    }

    /// A namespace of the cluster, or else of the manifests.
    pub(super) async fn namespace(&self, name: &str, declared: &[Value]) -> Result<Namespace> {
        let request = Request::new("/api/v1/namespaces").get(name, &GetParams::default())?;
        let call = async {
            match self.client.request::<Value>(request).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                result => result.map(Some),
            }
        };
        let found = api_server::request(TIMEOUT, call).await;
        let found = found
            .map_err(|problem| anyhow!(problem))
            .with_context(|| format!("cannot get namespace {name:?}"))?;
        let declared = || {
            let mut declared = declared.iter();
            declared
                .find(|object| object["metadata"]["name"] == name)
                .cloned()
        };
        let object = found.or_else(declared).with_context(|| {
            format!(
                "namespace {name:?} does not exist, neither in the cluster nor in the manifests: \
                 create it, or set --namespace-labels to check without the cluster"
            )
        })?;
        let labels = Option::<BTreeMap<_, _>>::deserialize(&object["metadata"]["labels"]);
        Ok(Namespace {
            name: name.to_owned(),
            labels: labels
                .with_context(|| format!("namespace {name:?} has invalid labels"))?
                .unwrap_or_default(),
            object,
        })
    }

    /// All injectors of the cluster.
    pub(super) async fn injectors(
        &self,
        istio_namespace: Option<&str>,
        from_cluster: bool,
    ) -> Result<Vec<Injector>> {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let objects = self.list(path).await;
        let objects = objects.context("cannot list the MutatingWebhookConfigurations")?;
        let mut injectors = Vec::new();
        for object in objects {
            let configuration = match Configuration::parse(&object) {
                Ok(configuration) => configuration,
                Err(problem) => {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    message!(
                        "interceptor: MutatingWebhookConfiguration {name} is not evaluated: {problem}"
                    );
                    continue;
                }
            };
            if configuration.is_injector() {
                let behavior = self.behavior(&configuration, istio_namespace, from_cluster);
                injectors.push(Injector {
                    behavior: behavior.await,
                    configuration,
                });
            }
        }
        Ok(injectors)
    }

    async fn behavior(
        &self,
        configuration: &Configuration,
        istio_namespace: Option<&str>,
        from_cluster: bool,
    ) -> Result<Behavior, String> {
        let mut webhooks = configuration.webhooks.iter();
        let is_ours = webhooks.any(|webhook| webhook.name.ends_with(OWN_WEBHOOKS));
        if is_ours && !from_cluster {
            return Ok(builtin_sidecar());
        }
        let of_service = configuration
            .webhooks
            .iter()
            .find_map(|webhook| match &webhook.target {
                webhooks::Target::Service { namespace, .. } => Some(namespace.as_str()),
                webhooks::Target::Url(_) => None,
            });
        let of_service = of_service.filter(|_| !is_ours);
        let namespace = istio_namespace.or(of_service).unwrap_or("istio-system");
        let rules = self.istio_rules(namespace, configuration.revision());
        rules
            .await
            .map(Behavior::Decides)
            .map_err(|problem| format!("{problem:#}"))
    }

    /// The rules of an istiod, from its ConfigMap.
    async fn istio_rules(&self, namespace: &str, revision: Option<&str>) -> Result<Rules> {
        let name = ConfigMapName::of_injector(namespace, revision.unwrap_or_default());
        let map = config_map(self.client.clone(), &name).await?;
        let map = map.with_context(|| {
            format!("{name} does not exist (--istioNamespace names another namespace)")
        })?;
        let text = map.data.as_ref().and_then(|data| data.get("config"));
        let text = text.with_context(|| format!("{name} has no key config"))?;
        let config: InjectConfig = serde_saphyr::from_str(text).map_err(|error| {
            // The lines that follow show the text.
            let error = error.to_string();
            anyhow!(
                "{name}, key config: {}",
                error.lines().next().unwrap_or_default()
            )
        })?;
        let (rules, warnings) = Rules::of_istio(
            &config.policy,
            &config.never_inject_selector,
            &config.always_inject_selector,
        );
        for warning in warnings {
            message!("interceptor: {name}, key config: {warning}");
        }
        Ok(rules)
    }
}

/// What decides in Istio's configuration.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct InjectConfig {
    policy: String,
    never_inject_selector: Value,
    always_inject_selector: Value,
}

/// The selector of a workload: that of the API, or the plain labels of older kinds.
fn pod_selector(selector: &Value) -> Result<Option<Selector>> {
    let Some(object) = selector.as_object().filter(|object| !object.is_empty()) else {
        return Ok(None);
    };
    let is_plain = object.values().all(Value::is_string);
    let selector = if is_plain {
        serde_json::json!({ "matchLabels": object })
    } else {
        selector.clone()
    };
    let selector = Selector::parse(&selector).context("the workload's selector")?;
    Ok((!selector.is_empty()).then_some(selector))
}
