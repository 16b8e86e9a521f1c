//! `interceptor check-inject`

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::{ArgGroup, Args, ValueEnum};
use interceptor_injection::{
    Config, Owner, Sidecar,
    check::{Behavior, Injector, Namespace},
    decision::{
        Rules,
        webhooks::{DEFAULT_REVISION, Standard},
    },
};
use serde_json::{Value, json};

use super::{labels::Labels, manifests, output};
use crate::{
    agent::policy::check_annotation,
    arguments::{dns_label, revision},
    sidecar::Access,
    stdio,
};

mod cluster;
mod manifest;
mod report;
mod target;

use cluster::Cluster;
use report::Checked;
use target::Target;

/// Show why a pod has a sidecar or not: which webhook, and which rule
///
/// Reads every MutatingWebhookConfiguration, evaluates selectors and rules for the pod, and then the
/// rules of each injector that would be called. It shows what happens to a new pod, what an existing
/// pod has, and what explains a difference. Nothing is changed.
#[derive(Args)]
#[command(
    group = ArgGroup::new("subject").args(["target", "labels", "files"]).required(true),
    after_help = "\
Examples:
  A pod; the newest pod of a workload:
    interceptor check-inject web-7d4b9-x2x4f -n shop
    interceptor check-inject shop/web-7d4b9-x2x4f
    interceptor check-inject deployment/web.shop
  A pod that does not exist, with these labels:
    interceptor check-inject -n shop -l app=web,sidecar.istio.io/inject=true
  Manifests, in the namespaces of the cluster, or without a cluster:
    interceptor check-inject -f manifests/
    interceptor check-inject -f app.yaml --namespace-labels istio-injection=enabled

Exit codes: 0 the question is answered, whether or not the pod is injected; 1 failure; 2 wrong command line; 3 there is a warning, a refused pod, or an open question, which the output shows."
)]
pub(super) struct CheckInject {
    /// The pod: POD, POD.NAMESPACE, NAMESPACE/POD, or KIND/NAME, such as deployment/web
    #[arg(value_name = "POD")]
    target: Option<Target>,

    /// Labels of a pod that does not exist
    #[arg(short, long, value_name = "KEY=VALUE,...")]
    labels: Option<Labels>,

    /// File or directory with manifests, - for standard input. Of a directory, the files *.yaml,
    /// *.yml and *.json are read
    #[arg(short, long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,

    /// Namespace of what names none [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAME", value_parser = dns_label)]
    namespace: Option<String>,

    /// Labels of the namespace. No cluster is read: the webhooks are those of deploy/webhook, which
    /// select as Istio's
    #[arg(
        long,
        value_name = "KEY=VALUE,...",
        conflicts_with_all = ["target", "from_cluster", "kubeconfig", "context", "istio_namespace"]
    )]
    namespace_labels: Option<Labels>,

    /// Revision of the webhooks with --namespace-labels [default: default]
    #[arg(
        short,
        long,
        value_name = "NAME",
        value_parser = revision,
        requires = "namespace_labels",
        conflicts_with = "target"
    )]
    revision: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,

    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Where the cluster is, and what cannot be read there.
#[derive(Args)]
#[command(next_help_heading = "Cluster")]
struct ClusterOptions {
    #[command(flatten)]
    access: Access,

    /// Namespace of Istio's ConfigMaps [default: that of the webhook's Service]
    #[arg(short = 'i', long = "istioNamespace", value_name = "NAME", value_parser = dns_label)]
    istio_namespace: Option<String>,

    /// interceptor's own webhook runs with --from-cluster: policy and selectors of Istio's ConfigMaps
    /// apply to it
    #[arg(long)]
    from_cluster: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Tables for people.
    #[default]
    #[value(alias = "text")]
    Table,
    /// One JSON list for programs.
    Json,
    /// The same list as YAML.
    Yaml,
}

/// Exit code if there is a warning.
const WARNING: u8 = 3;

/// A pod or a pod template, and where it comes from.
struct Found {
    /// As kubectl prints it: `pod/web-1`.
    object: String,
    file: Option<String>,
    namespace: String,
    pod: Value,
    exists: bool,
    owner: Option<Owner>,
}

impl CheckInject {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (injectors, found, namespaces) = match &self.namespace_labels {
            Some(labels) => self.without_cluster(labels)?,
            None => runtime.block_on(self.with_cluster())?,
        };
        let checked: Vec<_> = found
            .iter()
            .map(|found| Checked::new(found, &namespaces[&found.namespace], &injectors))
            .collect();
        stdio::print(&match self.output {
            Output::Json => output::json(&report::documents(&checked))?,
            Output::Yaml => output::yaml(&report::documents(&checked))?,
            Output::Table => report::text(&checked),
        })?;
        let has_warning = checked.iter().any(Checked::has_warning);
        Ok(ExitCode::from(if has_warning { WARNING } else { 0 }))
    }

    fn without_cluster(&self, labels: &Labels) -> Result<Everything> {
        let standard = Standard {
            revision: self.revision.as_deref().unwrap_or(DEFAULT_REVISION),
            by_default: false,
        };
        let injector = Injector {
            configuration: standard.configuration(),
            behavior: Ok(builtin_sidecar()),
        };
        let namespace = self.namespace.as_deref().unwrap_or("default");
        let (found, _) = self.described(namespace)?;
        let labels: BTreeMap<_, _> = labels
            .get()
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let namespaces = found.iter().map(|found| {
            let namespace = Namespace {
                name: found.namespace.clone(),
                labels: labels.clone(),
                object: Value::Null,
            };
            (found.namespace.clone(), namespace)
        });
        let namespaces = namespaces.collect();
        Ok((vec![injector], found, namespaces))
    }

    async fn with_cluster(&self) -> Result<Everything> {
        let options = &self.cluster;
        let (mut found, declared) = match self.target {
            Some(_) => (Vec::new(), Vec::new()),
            None => self.described(self.namespace.as_deref().unwrap_or_default())?,
        };
        let cluster = Cluster::connect(&options.access).await?;
        if let Some(target) = &self.target {
            found.push(cluster.find(target, self.namespace.as_deref()).await?);
        }
        for found in found.iter_mut().filter(|found| found.namespace.is_empty()) {
            found.namespace.clone_from(&cluster.default_namespace);
        }
        let names: BTreeSet<_> = found.iter().map(|found| &found.namespace).collect();
        let mut namespaces = BTreeMap::new();
        for name in names {
            let namespace = cluster.namespace(name, &declared).await?;
            namespaces.insert(name.clone(), namespace);
        }
        let istio = options.istio_namespace.as_deref();
        let injectors = cluster.injectors(istio, options.from_cluster).await?;
        Ok((injectors, found, namespaces))
    }

    /// The pods that the command line or the manifests describe, and the namespaces of the manifests.
    fn described(&self, namespace: &str) -> Result<(Vec<Found>, Vec<Value>)> {
        if let Some(labels) = &self.labels {
            let found = Found {
                object: "pod".to_owned(),
                file: None,
                namespace: namespace.to_owned(),
                pod: json!({"metadata": {"labels": labels.get()}, "spec": {"containers": []}}),
                exists: false,
                owner: None,
            };
            return Ok((vec![found], Vec::new()));
        }
        let (mut found, mut declared) = (Vec::new(), Vec::new());
        for source in manifests::read(&self.files)? {
            manifest::read(&source, namespace, &mut found, &mut declared)?;
        }
        if found.is_empty() {
            bail!("the manifests of --filename have no pod and no workload");
        }
        Ok((found, declared))
    }
}

/// The injectors, what is checked, and its namespaces.
type Everything = (Vec<Injector>, Vec<Found>, BTreeMap<String, Namespace>);

/// What our webhook does without options.
fn builtin_sidecar() -> Behavior {
    let sidecar = Sidecar::Builtin(Box::default(), check_annotation);
    Behavior::Injects(Box::new(Config {
        rules: Rules::default(),
        sidecar,
    }))
}
