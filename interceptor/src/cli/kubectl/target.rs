//! The pod or the node that a command is about.

use std::str::FromStr;

use anyhow::Result;
use clap::Args;

use crate::{
    agent_client::forward::{AgentPod, Agents},
    api_server,
    arguments::{dns_label, is_dns_label, object_name},
    pod_name::PodName,
    sidecar::Access,
};

/// A pod, or all of a node, and how to reach its agent.
#[derive(Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct Target {
    /// The pod: NAME, NAMESPACE/NAME, or NAME.NAMESPACE
    #[arg(id = "target", value_name = "POD", help_heading = None)]
    pod: Option<Name>,

    /// Namespace of a pod that is named without one [default: that of the kubeconfig's context]
    #[arg(id = "namespace_of_pod", short, long = "namespace", value_name = "NAME", value_parser = dns_label)]
    namespace: Option<String>,

    /// All pods of this node, in place of one pod. Not required if there is one node only
    #[arg(long, value_name = "NAME", value_parser = object_name, conflicts_with = "target")]
    node: Option<String>,

    /// Namespace of the agents [default: all that may be read, or else interceptor-system]
    #[arg(long, value_name = "NAME", value_parser = dns_label)]
    agent_namespace: Option<String>,

    #[command(flatten)]
    access: Access,
}

/// The syntax of a [`Name`].
const EXPECTED: &str = "expected NAME, NAMESPACE/NAME or NAME.NAMESPACE, in lower case";

/// A name with or without its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Full(PodName),
    Short(String),
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = match text.strip_prefix("pod/").unwrap_or(text) {
            short if is_dns_label(short) => Self::Short(short.to_owned()),
            full => Self::Full(full.parse().map_err(|_error| EXPECTED)?),
        };
        match &name {
            // It is a part of URLs.
            Self::Full(PodName { namespace, name })
                if dns_label(namespace).is_err() || object_name(name).is_err() =>
            {
                Err(EXPECTED.to_owned())
            }
            _ => Ok(name),
        }
    }
}

impl Target {
    /// The pod, if one is named, and its agent.
    pub(super) async fn find(&self) -> Result<(Option<PodName>, AgentPod)> {
        self.find_in(self.namespace.as_deref()).await
    }

    /// The same with another namespace for a pod that is named without one.
    pub(super) async fn find_in(
        &self,
        namespace: Option<&str>,
    ) -> Result<(Option<PodName>, AgentPod)> {
        let config = self.access.config().await?;
        let default = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = api_server::client(config)?;
        let agents = Agents::new(client, self.agent_namespace.clone());
        let pod = self.pod.clone().map(|name| name.full(default));
        let agent = match (&pod, &self.node) {
            (Some(pod), _) => agents.of_pod(pod).await?,
            (None, Some(node)) => agents.of_node(node).await?,
            (None, None) => agents.only().await?,
        };
        Ok((pod, agent))
    }
}

impl Name {
    fn full(self, namespace: String) -> PodName {
        match self {
            Self::Full(name) => name,
            Self::Short(name) => PodName { namespace, name },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_a_namespace_or_not() {
        let full = Name::Full(PodName {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
        });
        assert_eq!("shop/web-0".parse(), Ok(full.clone()));
        assert_eq!("web-0.shop".parse(), Ok(full));
        for text in ["web-0", "pod/web-0"] {
            assert_eq!(text.parse(), Ok(Name::Short("web-0".to_owned())));
        }
        for text in ["", "Web", "a/b/c", "shop/Web", "shop/..", "a?b/c"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
