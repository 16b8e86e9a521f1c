//! The plugin's configuration: its entry in a network's list, which the agent writes.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{json, value::RawValue};

use super::{
    error::{CniError, Code},
    protocol::SOCKET,
};
use crate::pod_name::PodName;

/// The length of the random suffix of a `DaemonSet`'s pod names.
const SUFFIX_LENGTH: usize = 5;

/// Whether a pod starts while no agent responds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum FailurePolicy {
    /// The pod does not start, as it may belong to the mesh
    #[default]
    Fail,
    /// The pod starts uncaptured, until an agent captures it
    Ignore,
}

/// The name pattern of the agent's own pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentPods {
    /// Their namespace.
    pub namespace: String,
    /// The prefix of their names: the `DaemonSet`'s name and a hyphen.
    pub prefix: String,
}

impl AgentPods {
    /// The pattern that `pod`, an agent's pod, and its siblings match.
    #[must_use]
    pub fn like(pod: &PodName) -> Self {
        let end = pod
            .name
            .rfind('-')
            .map_or(pod.name.len(), |hyphen| hyphen + 1);
        Self {
            namespace: pod.namespace.clone(),
            prefix: pod.name[..end].to_owned(),
        }
    }

    fn contain(&self, pod: &PodName) -> bool {
        let suffix = pod.name.strip_prefix(&self.prefix);
        self.namespace == pod.namespace
            && suffix.is_some_and(|suffix| suffix.len() <= SUFFIX_LENGTH)
    }
}

/// The plugin's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginSettings {
    /// The agent's socket.
    pub socket: PathBuf,
    /// Namespaces whose pods start without a request to the agent.
    pub exclude_namespaces: Vec<String>,
    /// The agent's own pods, which start without a request to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_pods: Option<AgentPods>,
    /// Whether a pod starts while no agent responds.
    pub failure_policy: FailurePolicy,
    /// The timeout of ADD. Runtimes time out after two minutes or later.
    pub wait_seconds: u32,
    /// The log file. Runtimes show the plugin's standard error only if it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_file: Option<PathBuf>,
    /// The host path of the directory that contains this configuration, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conf_dir: Option<PathBuf>,
    /// Whether the node is uninstalled except for pods that are still captured: every new pod starts
    /// uncaptured, and with the last captured pod the plugin removes itself from the node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub uninstalled: bool,
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self {
            socket: SOCKET.into(),
            exclude_namespaces: vec!["kube-system".to_owned()],
            agent_pods: None,
            failure_policy: FailurePolicy::Fail,
            wait_seconds: 60,
            log_file: None,
            conf_dir: None,
            uninstalled: false,
        }
    }
}

impl PluginSettings {
    /// Reads the settings from a configuration. Other fields are ignored.
    pub fn read(input: &[u8]) -> Result<Self, CniError> {
        serde_json::from_slice(input).map_err(|error| bad_conf(&error))
    }

    /// Why `pod` starts without a request to the agent, if it does.
    #[must_use]
    pub fn passes(&self, pod: &PodName) -> Option<String> {
        let PodName { namespace, .. } = pod;
        if self.exclude_namespaces.contains(namespace) {
            return Some(format!("the namespace {namespace} is excluded"));
        }
        let own = self
            .agent_pods
            .as_ref()
            .is_some_and(|pods| pods.contain(pod));
        own.then(|| "the pod belongs to the agent's DaemonSet".to_owned())
    }

    /// The timeout of ADD.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.wait_seconds.into())
    }
}

/// The fields that the runtime adds to every configuration.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// The version of the specification.
    #[serde(default)]
    pub cni_version: String,
    /// The result of the plugins before us, byte for byte.
    #[serde(default)]
    pub prev_result: Option<Box<RawValue>>,
    /// With GC: the attachments that exist.
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<IgnoredAny>>,
}

impl Conf {
    /// Reads the fields from a configuration.
    pub fn read(input: &[u8]) -> Result<Self, CniError> {
        serde_json::from_slice(input).map_err(|error| bad_conf(&error))
    }

    /// The result of ADD: that of the plugins before us, or an empty one if Multus calls our
    /// stand-alone network.
    #[must_use]
    pub fn result(&self) -> String {
        let empty = || {
            let version = &self.cni_version;
            json!({"cniVersion": version, "interfaces": [], "ips": [], "dns": {}}).to_string()
        };
        let result = self.prev_result.as_ref();
        result.map_or_else(empty, |result| result.get().to_owned())
    }
}

fn bad_conf(error: &serde_json::Error) -> CniError {
    let code = if error.is_data() {
        Code::Conf
    } else {
        Code::Decode
    };
    CniError::new(
        code,
        "invalid network configuration on standard input",
        format!("{error}; interceptor-cni's part of it is written by `interceptor agent`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str) -> PodName {
        PodName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn the_previous_result_is_passed_on_byte_for_byte() {
        let previous = r#"{ "ips":[{"address":"10.1.0.2/24","version" : "4"}], "x":1.50, "b":{} }"#;
        let input = format!(r#"{{"cniVersion":"0.3.1","prevResult":{previous},"type":"x"}}"#);
        let conf = Conf::read(input.as_bytes()).unwrap();
        assert_eq!(conf.result(), previous);
    }

    #[test]
    fn without_a_previous_result_the_result_is_empty() {
        for version in super::super::version::SUPPORTED {
            let input = format!(r#"{{"cniVersion":"{version}","name":"net"}}"#);
            let result = Conf::read(input.as_bytes()).unwrap().result();
            let result: serde_json::Value = serde_json::from_str(&result).unwrap();
            assert_eq!(result["cniVersion"], version);
            assert_eq!(result["ips"], serde_json::json!([]));
        }
    }

    #[test]
    fn the_empty_result_is_json_whatever_the_version_is() {
        let input = r#"{"cniVersion":"1.0\u0001\u200b","name":"net"}"#;
        let result = Conf::read(input.as_bytes()).unwrap().result();
        let result: serde_json::Value = serde_json::from_str(&result).unwrap();
        assert_eq!(result["cniVersion"], "1.0\u{1}\u{200b}");
    }

    #[test]
    fn settings_survive_a_round_trip() {
        let settings = PluginSettings {
            agent_pods: Some(AgentPods::like(&pod("mesh", "interceptor-agent-x7k2p"))),
            failure_policy: FailurePolicy::Ignore,
            log_file: Some("/var/run/interceptor/cni.log".into()),
            ..PluginSettings::default()
        };
        let text = serde_json::to_string(&settings).unwrap();
        assert!(
            text.contains(r#""excludeNamespaces":["kube-system"]"#),
            "{text}"
        );
        assert!(text.contains(r#""failurePolicy":"Ignore""#), "{text}");
        assert_eq!(PluginSettings::read(text.as_bytes()), Ok(settings));
    }

    #[test]
    fn only_the_agents_own_pods_match_its_pattern() {
        let settings = PluginSettings {
            agent_pods: Some(AgentPods::like(&pod("mesh", "interceptor-agent-x7k2p"))),
            ..PluginSettings::default()
        };
        assert!(
            settings
                .passes(&pod("mesh", "interceptor-agent-9zzzq"))
                .is_some()
        );
        assert!(settings.passes(&pod("kube-system", "anything")).is_some());
        assert_eq!(
            settings.passes(&pod("shop", "interceptor-agent-x7k2p")),
            None
        );
        assert_eq!(
            settings.passes(&pod("mesh", "interceptor-agent-debugger")),
            None
        );
        assert_eq!(settings.passes(&pod("mesh", "web")), None);
    }

    #[test]
    fn invalid_json_and_invalid_values_have_different_codes() {
        assert_eq!(PluginSettings::read(b"{").unwrap_err().code, Code::Decode);
        let wrong = br#"{"failurePolicy":"perhaps"}"#;
        assert_eq!(PluginSettings::read(wrong).unwrap_err().code, Code::Conf);
    }
}
