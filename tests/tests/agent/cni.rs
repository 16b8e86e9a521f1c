//! The CNI plugin, called as a runtime calls it: a process, with `CNI_*` in its environment and the
//! network's configuration on its standard input.

mod agent;
mod allowed;
mod by_hand;
mod chained;
mod failing;
mod uninstalling;
mod verbs;

use std::{path::Path, process::Output};

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
};
use serde_json::{Value, json};

/// The result of the plugins before us.
const PREVIOUS: &str = r#"{ "cniVersion":"1.0.0", "ips":[{"address":"10.1.0.2/24"}], "x" : 1.50 }"#;

/// A call of the plugin.
struct Call<'a> {
    verb: &'a str,
    pod: Option<(&'a str, &'a str)>,
    netns: &'a str,
    input: String,
}

impl<'a> Call<'a> {
    /// A call for a pod of the mesh, with the agent's socket at `socket`.
    fn new(verb: &'a str, socket: &Path) -> Self {
        Self {
            verb,
            pod: Some(("shop", "web-0")),
            netns: "/var/run/netns/cni-1",
            input: conf(socket, "1.0.0", &json!({})),
        }
    }

    fn pod(mut self, namespace: &'a str, name: &'a str) -> Self {
        self.pod = Some((namespace, name));
        self
    }

    fn input(mut self, input: impl Into<String>) -> Self {
        self.input = input.into();
        self
    }

    fn run(&self) -> Output {
        let mut command = bounded(interceptor::binary());
        command.arg("cni");
        let arguments = self.pod.map_or_else(
            || "IgnoreUnknown=1".to_owned(),
            |(namespace, name)| {
                format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=11-22")
            },
        );
        command
            .env("CNI_COMMAND", self.verb)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", self.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", arguments);
        output(&mut command, &self.input).expect("a run")
    }

    /// Expects success, with `expected` on standard output.
    #[track_caller]
    fn succeeds(&self, expected: &str) {
        let output = self.run();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{stderr}"
        );
    }

    /// Expects an error with `code` that contains all `words`.
    #[track_caller]
    fn fails(&self, code: u32, words: &[&str]) -> Value {
        let output = self.run();
        assert_eq!(output.status.code(), Some(1));
        let error: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(error["code"], code, "{error}");
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        error
    }
}

/// The configuration that a runtime passes to the plugin, with [`PREVIOUS`] byte for byte.
fn conf(socket: &Path, version: &str, more: &Value) -> String {
    let mut conf = json!({
        "cniVersion": version, "name": "net", "type": "interceptor-cni",
        "socket": socket, "waitSeconds": 2, "runtimeConfig": {"unknown": true},
    });
    let fields = conf.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    let conf = conf.to_string();
    let start = conf.strip_suffix('}').expect("an object");
    format!("{start},\"prevResult\":{PREVIOUS}}}")
}
