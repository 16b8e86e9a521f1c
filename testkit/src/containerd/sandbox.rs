//! A pod's sandbox and its containers.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    net::IpAddr,
    os::{
        fd::AsRawFd as _,
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::stat::Mode,
    unistd::mkfifo,
};
use serde_json::Value;

use super::{
    Containerd,
    messages::{
        ContainerConfig, ContainerMetadata, CreateContainerRequest, Id, Int64Value,
        LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
        LinuxSandboxSecurityContext, Mount, NamespaceOption, Nothing, PodSandboxConfig,
        PodSandboxMetadata, PodSandboxStatusRequest, PodSandboxStatusResponse,
        RunPodSandboxRequest, StopContainerRequest,
    },
    spec,
};
use crate::{
    actor::{Actor, User},
    command::own_binary,
    interceptor,
    janitor::{self, Task},
    lab::cookie_at,
    node::{Manifest, Node, Pod},
    users::{APP, PROXY},
    world::{Bind, serve},
};

/// Every container has a PID namespace of its own: `NamespaceMode.CONTAINER`, kubelet's default.
const OWN_PROCESSES: Option<NamespaceOption> = Some(NamespaceOption { pid: 1 });

/// Runs the actor with the test's pipes. The shell waits until their other ends are open.
const ACTOR: &str = r#"exec /actor here "$0" </pipes/requests >/pipes/replies"#;

/// The directories of the libraries that the tests' programs need.
const LIBRARIES: [&str; 3] = ["/lib", "/lib64", "/usr/lib"];

/// A sandbox and its containers.
pub struct Sandbox<'a> {
    containerd: &'a Containerd,
    containers: BTreeMap<String, Container>,
    config: PodSandboxConfig,
    id: String,
    netns: Netns,
    address: IpAddr,
    /// Whether the test detaches the pod, instead of the tested agent.
    is_tests: bool,
}

/// An open network namespace: it can be detached when it has no process any more.
struct Netns {
    path: PathBuf,
    _file: File,
}

/// A container's name, its actor's name, and its user.
#[derive(Clone, Copy)]
struct ContainerRole {
    container: &'static str,
    actor: &'static str,
    user: User,
}

const THE_APP: ContainerRole = ContainerRole {
    container: "app",
    actor: "app",
    user: APP,
};
const THE_PROXY: ContainerRole = ContainerRole {
    container: "istio-proxy",
    actor: "proxy",
    user: PROXY,
};

struct Container {
    actor: Actor,
    id: String,
    attempt: u32,
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        if !self.is_tests {
            return;
        }
        // A running agent would capture a pod again while it has processes.
        if let Err(error) = self.call("StopPodSandbox") {
            eprintln!("{error:#}");
        }
        // The agent may have detached it; the janitor no longer has to.
        let _detached = interceptor::detach(&self.netns.path);
        drop(janitor::register(&Task::Detached(self.netns.path.clone())));
    }
}

impl Netns {
    /// Opens that of a process, and registers a detach with the janitor.
    fn of(pid: u64) -> Result<Self> {
        let file = File::open(format!("/proc/{pid}/ns/net"))?;
        let path = format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd());
        let path = PathBuf::from(path);
        janitor::register(&Task::Detach(path.clone()))?;
        Ok(Self { path, _file: file })
    }
}

impl Containerd {
    /// Creates a sandbox for a pod whose cgroup exists: its `attempt`th.
    pub fn run_sandbox(&self, node: &Node, pod: &Pod, attempt: u32) -> Result<Sandbox<'_>> {
        let config = sandbox_config(node, pod, attempt)?;
        fs::create_dir_all(&config.log_directory)?;
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
        };
        let Id { id } = self.cri.call("RunPodSandbox", request)?;
        let (pid, address) = self.made(&id)?;
        Ok(Sandbox {
            containerd: self,
            containers: BTreeMap::new(),
            config,
            id,
            netns: Netns::of(pid)?,
            address,
            is_tests: true,
        })
    }

    /// A sandbox's process and address.
    fn made(&self, id: &str) -> Result<(u64, IpAddr)> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let response: PodSandboxStatusResponse = self.cri.call("PodSandboxStatus", request)?;
        let info: Value = serde_json::from_str(response.info.get("info").context("no info")?)?;
        let pid = info["pid"].as_u64().context("no process")?;
        let network = response.status.and_then(|status| status.network);
        let address = network.context("no network")?.ip.parse()?;
        Ok((pid, address))
    }
}

impl Sandbox<'_> {
    /// The cookie of its network namespace.
    pub fn cookie(&self) -> Result<u64> {
        cookie_at(&self.netns.path)
    }

    /// Its first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Starts the proxy, which listens on its ports.
    pub fn start_proxy(&mut self) -> Result<()> {
        let proxy = self.start_container(THE_PROXY)?;
        for bind in Bind::BOTH_WILDCARDS {
            for port in [15001, 15006] {
                serve(proxy, bind, port)?;
            }
        }
        Ok(())
    }

    /// Starts the app, which serves port 8080.
    pub fn start_app(&mut self) -> Result<()> {
        let app = self.start_container(THE_APP)?;
        serve(app, Bind::DUAL_WILDCARD, 8080).map(drop)
    }

    /// The app's process.
    pub fn app(&self) -> Result<&Actor> {
        Ok(&self.containers.get("app").context("no app")?.actor)
    }

    /// The runtime's ID of the app's container.
    pub fn app_id(&self) -> Result<&str> {
        Ok(&self.containers.get("app").context("no app")?.id)
    }

    /// Starts a container, and replaces the one of that name if it exists.
    fn start_container(&mut self, role: ContainerRole) -> Result<&Actor> {
        let name = role.container;
        let attempt = match self.containers.remove(name) {
            Some(old) => {
                self.remove_container(&old.id)?;
                old.attempt + 1
            }
            None => 0,
        };
        let dir = format!("pipes/{}-{name}-{attempt}", self.id);
        let pipes = Pipes::new(&self.containerd.dir.join(dir))?;
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(container_config(&self.config, role, attempt, &pipes)?),
            sandbox_config: Some(self.config.clone()),
        };
        let cri = &self.containerd.cri;
        let Id { id } = cri.call("CreateContainer", request)?;
        let Nothing {} = cri.call("StartContainer", Id { id: id.clone() })?;
        let actor = Actor::beyond_pipes(role.actor, pipes.requests, pipes.replies)?;
        let container = Container { actor, id, attempt };
        Ok(&self
            .containers
            .entry(name.to_owned())
            .or_insert(container)
            .actor)
    }

    fn remove_container(&self, id: &str) -> Result<()> {
        let container_id = id.to_owned();
        let request = StopContainerRequest {
            container_id,
            timeout: 1,
        };
        let cri = &self.containerd.cri;
        let Nothing {} = cri.call("StopContainer", request)?;
        let id = id.to_owned();
        let Nothing {} = cri.call("RemoveContainer", Id { id })?;
        Ok(())
    }

    /// Stops the sandbox with all containers: the plugins delete its network.
    pub fn stop(&mut self) -> Result<()> {
        self.is_tests = false;
        janitor::register(&Task::Detached(self.netns.path.clone()))?;
        self.containers.clear();
        self.call("StopPodSandbox")
    }

    /// Removes the stopped sandbox: the plugins are called with DEL again.
    pub fn remove(mut self) -> Result<()> {
        self.stop()?;
        self.call("RemovePodSandbox")
    }

    fn call(&self, method: &str) -> Result<()> {
        let id = self.id.clone();
        let Nothing {} = self.containerd.cri.call(method, Id { id })?;
        Ok(())
    }
}

/// As kubelet's `generatePodSandboxConfig` has it.
fn sandbox_config(node: &Node, pod: &Pod, attempt: u32) -> Result<PodSandboxConfig> {
    let Manifest {
        namespace,
        name,
        uid,
        annotations,
        ..
    } = &pod.manifest;
    let cgroup = pod.cgroup().strip_prefix(node.cgroup.path())?;
    let logs = node.dir().join("logs");
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.clone(),
            uid: uid.clone(),
            namespace: namespace.clone(),
            attempt,
        }),
        hostname: name.clone(),
        log_directory: format!("{}/{namespace}_{name}_{uid}", logs.display()),
        labels: labels(&pod.manifest),
        annotations: annotations.clone().into_iter().collect(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: format!("/{}", cgroup.display()),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: OWN_PROCESSES,
            }),
        }),
    })
}

fn labels(pod: &Manifest) -> HashMap<String, String> {
    let own = [
        ("io.kubernetes.pod.name", &pod.name),
        ("io.kubernetes.pod.namespace", &pod.namespace),
        ("io.kubernetes.pod.uid", &pod.uid),
        ("app", &pod.name),
    ];
    own.map(|(key, value)| (key.to_owned(), value.clone()))
        .into()
}

/// As kubelet's `generateContainerConfig` has it.
fn container_config(
    sandbox: &PodSandboxConfig,
    role: ContainerRole,
    attempt: u32,
    pipes: &Pipes,
) -> Result<ContainerConfig> {
    let name = role.container;
    let mut labels = sandbox.labels.clone();
    labels.insert("io.kubernetes.container.name".to_owned(), name.to_owned());
    let log = Path::new(&sandbox.log_directory).join(name);
    fs::create_dir_all(log)?;
    let id = |id: u32| Some(Int64Value { value: id.into() });
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: name.to_owned(),
            attempt,
        }),
        image: Some(spec()),
        command: ["/bin/sh", "-c", ACTOR, role.actor]
            .map(str::to_owned)
            .into(),
        mounts: mounts(&pipes.dir)?,
        labels,
        log_path: format!("{name}/{attempt}.log"),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: OWN_PROCESSES,
                run_as_user: id(role.user.uid),
                run_as_group: id(role.user.gid),
                no_new_privs: true,
            }),
        }),
    })
}

fn mounts(pipes: &Path) -> Result<Vec<Mount>> {
    let mount = |from: &Path, to: &str, readonly| Mount {
        container_path: to.to_owned(),
        host_path: from.display().to_string(),
        readonly,
    };
    let actor = own_binary("interceptor-test-actor")?;
    let mut mounts = vec![mount(pipes, "/pipes", false), mount(&actor, "/actor", true)];
    for library in LIBRARIES {
        let path = Path::new(library);
        if path.exists() {
            mounts.push(mount(path, library, true));
        }
    }
    Ok(mounts)
}

/// Named pipes for the requests and replies of a process in a container.
struct Pipes {
    dir: PathBuf,
    requests: File,
    replies: File,
}

impl Pipes {
    fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let mut requests = OpenOptions::new();
        // Opening for reading and writing does not wait for the other end.
        let requests = pipe(&dir.join("requests"), requests.read(true).write(true))?;
        let mut replies = OpenOptions::new();
        let replies = pipe(&dir.join("replies"), replies.read(true))?;
        Ok(Self {
            dir: dir.to_owned(),
            requests,
            replies,
        })
    }
}

/// Creates a pipe that every user may open, and opens it without waiting for the other end.
fn pipe(path: &Path, how: &mut OpenOptions) -> Result<File> {
    mkfifo(path, Mode::S_IRWXU)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    let file = how.custom_flags(libc::O_NONBLOCK).open(path)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}
