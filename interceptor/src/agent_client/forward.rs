//! The agents of a cluster, reached by a port-forward of the API server.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, anyhow, bail, ensure};
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Error,
    api::{ListParams, ObjectList},
    client::UpgradeConnectionError,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::AgentClient;
use crate::{api_server::error_text, pod_name::PodName};

/// The port of the agent's API and page, on the loopback interface of its node.
pub(crate) const PORT: u16 = 15029;

/// The labels of the agents' pods.
const LABELS: &str = "app.kubernetes.io/name=interceptor";
/// Their namespace, if the client may not list all.
const NAMESPACE: &str = "interceptor-system";

/// Limit for a request to the API server.
const LIMIT: Duration = Duration::from_secs(20);

/// The rights that are required.
const RIGHTS: &str = include_str!("../../../deploy/viewer/rbac.yaml");

/// The agents of a cluster.
pub(crate) struct Agents {
    client: Client,
    /// The namespace of their pods; nothing searches all.
    namespace: Option<String>,
}

/// The agent of one node.
#[derive(Clone)]
pub(crate) struct AgentPod {
    client: Client,
    namespace: String,
    name: String,
    node: String,
    /// Why it may not respond.
    problem: Option<String>,
}

/// An open port of an agent.
pub(crate) struct Forwarded {
    pub(crate) stream: Box<dyn Stream>,
    /// Why the node could not connect to the port, if it could not.
    pub(crate) failure: BoxFuture<'static, Option<String>>,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Agents {
    pub(crate) const fn new(client: Client, namespace: Option<String>) -> Self {
        Self { client, namespace }
    }

    /// The agent of the pod's node.
    pub(crate) async fn of_pod(&self, pod: &PodName) -> Result<AgentPod> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace);
        let found = within(pods.get_opt(&pod.name)).await;
        let found = found.map_err(|error| denied(error, &format!("cannot read the pod {pod}")))?;
        let Some(found) = found else {
            bail!("there is no pod {pod} in the cluster");
        };
        match found.spec.and_then(|spec| spec.node_name) {
            Some(node) => self.of_node(&node).await,
            None => bail!("the pod {pod} has no node yet: it is not scheduled"),
        }
    }

    /// The agent of a node.
    pub(crate) async fn of_node(&self, node: &str) -> Result<AgentPod> {
        let fields = format!("spec.nodeName={node}");
        let mut pods = self.list(&ListParams::default().fields(&fields)).await?;
        // While an agent is replaced, its node has two.
        pods.sort_by_key(|pod| !is_running(pod));
        match pods.into_iter().next() {
            Some(pod) => Ok(self.agent(pod)),
            None => bail!(
                "no agent runs on the node {node}: no pod there has the label {LABELS}{}. \
                 `kubectl get daemonset -A -l {LABELS}` shows whether one should",
                self.searched()
            ),
        }
    }

    /// The agent of a cluster that has only one.
    pub(crate) async fn only(&self) -> Result<AgentPod> {
        let mut pods = self.list(&ListParams::default()).await?;
        ensure!(
            !pods.is_empty(),
            "no agent runs in the cluster: no pod has the label {LABELS}{}",
            self.searched()
        );
        if let [_] = pods[..] {
            return Ok(self.agent(pods.remove(0)));
        }
        let nodes: BTreeSet<_> = pods
            .into_iter()
            .filter_map(|pod| pod.spec?.node_name)
            .collect();
        let nodes = Vec::from_iter(nodes).join(", ");
        bail!("name a pod, or a node with --node: agents run on {nodes}")
    }

    fn searched(&self) -> String {
        let namespace = self.namespace.as_ref();
        namespace.map_or_else(String::new, |name| format!(" in the namespace {name}"))
    }

    /// The agents' pods: in all namespaces, or in that which this client may read.
    async fn list(&self, parameters: &ListParams) -> Result<Vec<Pod>> {
        let parameters = parameters.clone().labels(LABELS);
        let what = "cannot list the agents' pods";
        let in_one = async |name: &str| {
            let pods = Api::namespaced(self.client.clone(), name);
            within(pods.list(&parameters)).await
        };
        let listed: Result<ObjectList<Pod>, Failure> = match &self.namespace {
            Some(name) => in_one(name).await,
            None => match within(Api::all(self.client.clone()).list(&parameters)).await {
                Err(error) if error.is_forbidden() => in_one(NAMESPACE).await,
                listed => listed,
            },
        };
        let pods = listed.map_err(|error| denied(error, what))?;
        Ok(pods.items)
    }

    fn agent(&self, pod: Pod) -> AgentPod {
        let problem = problem(&pod);
        let spec = pod.spec.unwrap_or_default();
        AgentPod {
            client: self.client.clone(),
            namespace: pod.metadata.namespace.unwrap_or_default(),
            name: pod.metadata.name.unwrap_or_default(),
            node: spec.node_name.unwrap_or_default(),
            problem,
        }
    }
}

impl AgentPod {
    pub(crate) fn describe(&self) -> String {
        let Self {
            namespace,
            name,
            node,
            ..
        } = self;
        format!("the agent {namespace}/{name} on the node {node}")
    }

    /// A client of its API.
    pub(crate) async fn connect(&self) -> Result<AgentClient> {
        let Forwarded { stream, failure } = self.forward().await?;
        let client = AgentClient::over(stream, self.describe()).await?;
        Ok(client.explained_by(failure, self.problem.clone()))
    }

    /// Opens a connection to its port.
    pub(crate) async fn forward(&self) -> Result<Forwarded> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let opened = within(pods.portforward(&self.name, &[PORT])).await;
        let mut forwarder = opened.map_err(|error| {
            let agent = self.describe();
            let error = denied(error, &format!("cannot forward the port {PORT} of {agent}"));
            match &self.problem {
                Some(problem) => anyhow!("{error:#} ({problem})"),
                None => error,
            }
        })?;
        let stream = forwarder.take_stream(PORT);
        let failure = forwarder.take_error(PORT);
        match (stream, failure) {
            (Some(stream), Some(failure)) => Ok(Forwarded {
                stream: Box::new(stream),
                failure: Box::pin(failure),
            }),
            _ => bail!("{} has no stream of the port {PORT}", self.describe()),
        }
    }
}

/// Why a request to the API server failed.
enum Failure {
    Late,
    Api(Error),
}

impl Failure {
    /// Whether the API server denied it. A WebSocket that is refused has a status only.
    fn is_forbidden(&self) -> bool {
        match self {
            Self::Api(Error::Api(status)) => status.code == 403,
            Self::Api(Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status))) => {
                *status == StatusCode::FORBIDDEN
            }
            _ => false,
        }
    }
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match timeout(LIMIT, call).await {
        Ok(result) => result.map_err(Failure::Api),
        Err(_late) => Err(Failure::Late),
    }
}

/// The error, with the rights that are missing.
fn denied(error: Failure, what: &str) -> anyhow::Error {
    let is_forbidden = error.is_forbidden();
    let cause = match error {
        Failure::Late => format!("no response from the API server within {LIMIT:?}"),
        Failure::Api(error) => error_text(&error),
    };
    if !is_forbidden {
        return anyhow!("{what}: {cause}");
    }
    anyhow!(
        "{what}: {cause}\nThese rights are required; an administrator applies them, and binds them \
         to you:\n\n{RIGHTS}"
    )
}

fn is_running(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    status.and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// Why the agent may not respond: it does not run, or is not ready.
fn problem(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if !is_running(pod) {
        let phase = status.phase.as_deref().unwrap_or("unknown");
        return Some(format!(
            "the agent's pod does not run, its phase is {phase}"
        ));
    }
    let mut conditions = status.conditions.iter().flatten();
    let ready = conditions.find(|condition| condition.type_ == "Ready")?;
    (ready.status != "True").then(|| "the agent's pod is not ready".to_owned())
}
