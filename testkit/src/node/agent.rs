//! `interceptor agent` on the node.

use std::{
    fs::{self, File},
    iter,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Container};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{Node, http};
use crate::{interceptor, lab::wait_until, manifests, spawn::spawn};

/// Joins the cgroup and the namespaces.
const SCRIPT: &str = r#"
echo $$ > "$1/cgroup.procs" || exit
shift
exec nsenter "$@"
"#;

/// Executes a program that dies with its parent. The demo handles signals in one thread and blocks
/// them in all others: the agent must not inherit that.
pub(super) const BECOME: [&str; 4] = [
    "env",
    "--default-signal=INT,TERM",
    "setpriv",
    "--pdeathsig=KILL",
];

/// Time limit of a response of the agent's HTTP server.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval of reading the agent's log.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The agent's `DaemonSet`, and its `ServiceAccount`.
const DAEMON_SET: &str = "interceptor";
/// The agent's pod.
pub(super) const OWN_POD: &str = "interceptor-abcde";
/// Their namespace.
pub const NAMESPACE: &str = "interceptor-system";

/// The object of the agent's pod.
pub(super) fn own_pod(node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": NAMESPACE,
            "name": OWN_POD,
            "labels": {"app.kubernetes.io/name": "interceptor"},
            "uid": "5c1e4a36-0000-4000-8000-000000000000",
            "ownerReferences": [{
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "name": DAEMON_SET,
                "uid": "0",
                "controller": true,
            }],
        },
        "spec": {"nodeName": node, "hostNetwork": true, "containers": [{"name": "agent"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// The options that need a component, and its directory in `deploy/`.
const COMPONENTS: [(&str, &str); 2] = [
    ("--taint", "examples/taint"),
    ("--live-annotations", "examples/live-annotations"),
];

/// The agent's container in the `DaemonSet`.
pub fn container() -> Result<Container> {
    let set = manifests::only(manifests::base()?, "DaemonSet")?;
    let set: DaemonSet = serde_json::from_value(set.clone())?;
    let pod = set.spec.and_then(|spec| spec.template.spec);
    let container = pod.and_then(|pod| pod.containers.into_iter().next());
    container.context("the DaemonSet has no container")
}

/// The capabilities of a container, as `setpriv` options.
pub(super) fn rights_of_root(container: &Container) -> Result<[String; 2]> {
    let context = container.security_context.clone();
    let capabilities = context.and_then(|context| context.capabilities);
    let added = capabilities.and_then(|capabilities| capabilities.add);
    let added = added.context("the container adds no capability")?;
    let added = added.iter().map(|name| format!("+{}", name.to_lowercase()));
    let all: Vec<_> = iter::once("-all".to_owned()).chain(added).collect();
    let all = all.join(",");
    Ok(["--bounding-set", "--inh-caps"].map(|option| format!("{option}={all}")))
}

/// The namespaces and the cgroup of an agent.
pub struct AgentPlacement {
    /// Its namespaces, as `nsenter` options.
    pub namespaces: Vec<String>,
    /// The path of the node's cgroup in its mount namespace.
    pub cgroup_root: PathBuf,
}

/// The agent. Killed when dropped.
pub struct AgentProcess {
    child: Child,
    http: SocketAddr,
    api: PathBuf,
    host: PathBuf,
    log: PathBuf,
}

impl Node {
    /// Applies objects, and lets the agent do only what they permit its `ServiceAccount`.
    pub fn deploy(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            self.api.put(object.clone())?;
        }
        let account = manifests::only(objects, "ServiceAccount")?;
        let name = account["metadata"]["name"].as_str().context("a name")?;
        self.api.authenticate_as(NAMESPACE, name);
        Ok(())
    }

    /// Applies only the roles and bindings among `objects`.
    fn grant(&self, objects: &[Value]) -> Result<()> {
        let is_right = |object: &&Value| {
            object["apiVersion"]
                .as_str()
                .is_some_and(|version| version.starts_with("rbac."))
        };
        for object in objects.iter().filter(is_right) {
            self.api.put(object.clone())?;
        }
        Ok(())
    }

    /// Starts the agent with additional options.
    pub fn start_agent(&self, options: &[&str]) -> Result<AgentProcess> {
        self.start_agent_of(&interceptor::binary(), options)
    }

    /// Starts the agent of another build.
    pub fn start_agent_of(&self, binary: &Path, options: &[&str]) -> Result<AgentProcess> {
        let placement = AgentPlacement {
            namespaces: vec![format!("--net={}", self.host.path().display())],
            cgroup_root: self.cgroup.path().to_owned(),
        };
        self.start_agent_in(&placement, binary, options)
    }

    /// Starts the agent with another placement.
    pub fn start_agent_in(
        &self,
        placement: &AgentPlacement,
        binary: &Path,
        options: &[&str],
    ) -> Result<AgentProcess> {
        for (option, directory) in COMPONENTS {
            if options.contains(&option) {
                self.grant(&manifests::render(directory)?)?;
            }
        }
        let http = self.host.enter(free_port)?;
        let kubeconfig = self.dir().join("kubeconfig");
        fs::write(&kubeconfig, self.api.kubeconfig())?;
        let log = self.dir().join(format!("agent-{}.log", self.new_id()));
        let output = File::create(&log)?;
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .arg(self.cgroup.child("system.slice/agent")?)
            .args(&placement.namespaces)
            .args(BECOME)
            .args(rights_of_root(&container()?)?)
            .arg(binary)
            .args(["agent", "--node-name", &self.name])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--cgroup-root")
            .arg(&placement.cgroup_root)
            .arg("--cni-conf-dir")
            .arg(&self.runtime.conf)
            .arg("--cni-bin-dir")
            .arg(&self.runtime.bin)
            .arg("--socket")
            .arg(self.dir().join("agent.sock"))
            .args(["--pod-namespace", NAMESPACE, "--pod-name", OWN_POD])
            .args(["--service-account", DAEMON_SET])
            .args(["--http-address", &http.to_string()])
            .args(["--log-level", "info,interceptor=debug"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        Ok(AgentProcess {
            child: spawn(command)?,
            http,
            api: self.dir().join("observe.sock"),
            host: self.host.path().to_owned(),
            log,
        })
    }

    /// Starts the agent and waits until it is ready.
    pub fn start_ready_agent(&self, options: &[&str]) -> Result<AgentProcess> {
        let mut agent = self.start_agent(options)?;
        agent.wait_until_ready()?;
        Ok(agent)
    }
}

impl AgentProcess {
    /// Waits until it reports that it is ready.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let ready = wait_until("the agent is ready", || {
            ensure!(self.child.try_wait()?.is_none(), "the agent has exited");
            Ok(self.get("/readyz").is_ok_and(|(status, _)| status == 200))
        });
        ready.with_context(|| self.log())
    }

    /// Its process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address of its metrics.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// `program` in the network namespace of its host.
    #[must_use]
    pub fn on_its_host(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.host.display()))
            .arg(program);
        command
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM, and waits until it has exited.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        kill(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGTERM,
        )?;
        let mut status = None;
        wait_until("the agent's exit", || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })
        .with_context(|| self.log())?;
        status.context("no exit status")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Its response: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        self.get_within(path, HTTP_TIMEOUT)
    }

    /// The same within a time limit.
    pub fn get_within(&self, path: &str, limit: Duration) -> Result<(u16, String)> {
        http::get(&self.host, self.http, path, limit)
    }

    /// The response of its API: status and body.
    pub fn api(&self, path: &str) -> Result<(u16, String)> {
        http::get_at(&self.api, path, HTTP_TIMEOUT)
    }

    /// The value of a metric, by its name and labels as in the text format.
    pub fn metric(&self, name: &str) -> Result<Option<f64>> {
        let (_, text) = self.get("/metrics")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map(str::parse).transpose()?)
    }

    /// Waits until it has captured this many pods, and returns how long each took.
    ///
    /// Reads the log: a scrape of its metrics would count every entry of its maps each time.
    pub fn wait_until_captured(&self, pods: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        let all = wait_until("all pods", || {
            // Reading needs CPU time, too.
            thread::sleep(POLL_INTERVAL);
            times = self.log().lines().filter_map(captured_in).collect();
            Ok(times.len() >= pods)
        });
        all.with_context(|| self.log())?;
        Ok(times)
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// How long a pod took, from the log line of its capture.
fn captured_in(line: &str) -> Option<Duration> {
    let (_, fields) = line.split_once(": captured ")?;
    let took = fields.split_once("took=")?.1;
    let took = took.split_whitespace().next()?;
    let (number, factor) = match took {
        took if took.ends_with("µs") => (took.strip_suffix("µs")?, 1e-6),
        took if took.ends_with("ms") => (took.strip_suffix("ms")?, 1e-3),
        took => (took.strip_suffix('s')?, 1.0),
    };
    Some(Duration::from_secs_f64(
        number.parse::<f64>().ok()? * factor,
    ))
}

/// A port without a listener: the network is the node's own.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_has_the_duration_of_a_capture() {
        let line = |took| format!("INFO agent: captured pod=shop/web uid=1 netns=/x took={took}");
        assert_eq!(
            captured_in(&line("1.5ms")),
            Some(Duration::from_micros(1500))
        );
        assert_eq!(
            captured_in(&line("900µs")),
            Some(Duration::from_micros(900))
        );
        assert_eq!(captured_in(&line("2s")), Some(Duration::from_secs(2)));
        assert_eq!(captured_in("INFO agent: the pod is deleted"), None);
    }
}
