//! A pod on the node: its cgroup, its sandbox, its containers.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Node, object::Manifest, runtime};
use crate::{
    actor::{Actor, User, process::Namespace},
    cgroup, interceptor,
    janitor::{self, Task},
    netns::Netns,
    world::{Bind, serve},
};

/// A pod on a node. Deleted when dropped.
pub struct Pod {
    // Dropped in this order.
    containers: BTreeMap<String, Container>,
    sandbox: Option<Sandbox>,
    /// Its properties.
    pub manifest: Manifest,
    cgroup: PathBuf,
}

struct Container {
    actor: Actor,
    cgroup: PathBuf,
}

/// The holder of a pod's network.
struct Sandbox {
    id: String,
    /// The pause process, except for sandboxes of a runtime without one.
    pause: Option<Container>,
    netns: Netns,
    result: Value,
    /// Whether the test detaches the pod, instead of the tested agent.
    is_tests: bool,
}

impl Drop for Container {
    fn drop(&mut self) {
        // Kills its process as well.
        if let Err(error) = cgroup::remove(&self.cgroup) {
            eprintln!("{}: {error}", self.cgroup.display());
        }
    }
}

impl Sandbox {
    /// The agent is to detach the pod. The janitor no longer keeps the network namespace: it is
    /// deleted as on a node.
    fn leave_to_agent(&mut self) -> Result<()> {
        self.is_tests = false;
        janitor::register(&Task::Detached(self.netns.path().to_owned()))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.is_tests && interceptor::detach(self.netns.path()).is_ok() {
            // The janitor no longer has to detach.
            drop(janitor::register(&Task::Detached(
                self.netns.path().to_owned(),
            )));
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.containers.clear();
        self.sandbox = None;
        if let Err(error) = cgroup::remove(&self.cgroup) {
            eprintln!("{}: {error}", self.cgroup.display());
        }
    }
}

impl Pod {
    /// Creates the pod's cgroup, as kubelet does first.
    pub(super) fn new(node: &Node, manifest: Manifest) -> Result<Self> {
        let cgroup = node.cgroup.child(&node.driver.pod(&manifest.uid))?;
        Ok(Self {
            containers: BTreeMap::new(),
            sandbox: None,
            manifest,
            cgroup,
        })
    }

    /// Creates a sandbox: network namespace, plugins, then the process that holds it. Nothing is
    /// left if a plugin fails.
    pub fn start_sandbox(&mut self, node: &Node) -> Result<()> {
        self.start_sandbox_after(node, |_| Ok(()))
    }

    /// The same; `prepare` runs in its network namespace before any plugin is called.
    pub fn start_sandbox_after(
        &mut self,
        node: &Node,
        prepare: impl FnOnce(&Netns) -> Result<()>,
    ) -> Result<()> {
        let id = node.new_id();
        let path = node.netns_dir().join(format!("cni-{id}"));
        let netns = match self.manifest.first_id {
            Some(first) => Netns::mounted_of_users(&path, first)?,
            None => Netns::mounted(&path)?,
        };
        janitor::register(&Task::Detach(netns.path().to_owned()))?;
        prepare(&netns)?;
        let mut sandbox = Sandbox {
            id,
            pause: None,
            netns,
            result: Value::Null,
            is_tests: true,
        };
        let call = runtime::Call {
            id: &sandbox.id,
            netns: sandbox.netns.path(),
            pod: &self.manifest,
        };
        match node.runtime.add(&node.host, &call) {
            Ok(result) => sandbox.result = result,
            Err(error) => {
                // The agent may have captured it nevertheless.
                sandbox.leave_to_agent()?;
                return Err(error);
            }
        }
        let cgroup = self.container_cgroup(node, &sandbox.id)?;
        let name = format!("{}-pause", self.manifest.name);
        let user = User::new(65535, 65535);
        let at = Namespace::At(sandbox.netns.path().to_owned());
        let actor = Actor::start(&name, user, at, Some(&cgroup))?;
        sandbox.pause = Some(Container { actor, cgroup });
        self.sandbox = Some(sandbox);
        Ok(())
    }

    /// Creates a sandbox without any plugin, whose network ends at the node: the `number`th of
    /// many.
    pub fn start_light_sandbox(&mut self, node: &Node, number: u8) -> Result<()> {
        let id = node.new_id();
        let netns = Netns::mounted(&node.netns_dir().join(format!("cni-{id}")))?;
        janitor::register(&Task::Detach(netns.path().to_owned()))?;
        let host = node.host.path().display();
        netns.ip(&format!(
            "link add eth0 type veth peer name light{number} netns {host}\n\
             addr add 10.1.{number}.2/24 dev eth0\n\
             link set lo up\n\
             link set eth0 up\n\
             route add default via 10.1.{number}.1"
        ))?;
        node.host.ip(&format!("link set light{number} up"))?;
        let cgroup = self.container_cgroup(node, &id)?;
        let at = Namespace::At(netns.path().to_owned());
        let actor = Actor::start("pause", User::new(65535, 65535), at, Some(&cgroup))?;
        self.sandbox = Some(Sandbox {
            id,
            pause: Some(Container { actor, cgroup }),
            netns,
            result: Value::Null,
            is_tests: true,
        });
        Ok(())
    }

    /// Stops containers and sandbox, with the plugins' DEL, as kubelet does when the sandbox has
    /// died, or the pod is deleted.
    pub fn stop_sandbox(&mut self, node: &Node) -> Result<()> {
        self.containers.clear();
        let Some(sandbox) = &mut self.sandbox else {
            return Ok(());
        };
        sandbox.pause = None;
        let call = runtime::Call {
            id: &sandbox.id,
            netns: sandbox.netns.path(),
            pod: &self.manifest,
        };
        node.runtime.del(&node.host, &call, &sandbox.result)?;
        sandbox.leave_to_agent()?;
        self.sandbox = None;
        Ok(())
    }

    /// Stops it without any plugin, and leaves the detach to the agent.
    pub fn vanish(mut self) -> Result<()> {
        self.containers.clear();
        let sandbox = self.sandbox.as_mut();
        sandbox.map_or(Ok(()), Sandbox::leave_to_agent)
    }

    /// Calls the plugins with DEL again, as kubelet does until it succeeds.
    pub fn del_again(&self, node: &Node, id: &str) -> Result<()> {
        let call = runtime::Call {
            id,
            netns: Path::new(""),
            pod: &self.manifest,
        };
        node.runtime.del(&node.host, &call, &Value::Null)
    }

    /// Starts a container, and replaces the one of that name if it exists. `user` is the user in
    /// the pod's user namespace.
    pub fn start_container(&mut self, node: &Node, name: &str, user: User) -> Result<&Actor> {
        self.containers.remove(name);
        let cgroup = self.container_cgroup(node, &node.new_id())?;
        let at = Namespace::At(self.netns()?.path().to_owned());
        let actor = Actor::start(name, self.as_node_names(user), at, Some(&cgroup))?;
        let container = Container { actor, cgroup };
        self.containers.insert(name.to_owned(), container);
        self.container(name)
    }

    /// Starts the proxy, which listens on its ports.
    pub fn start_proxy(&mut self, node: &Node) -> Result<()> {
        let proxy = self.start_container(node, "proxy", super::PROXY)?;
        for bind in Bind::BOTH_WILDCARDS {
            for port in [15001, 15006] {
                serve(proxy, bind, port)?;
            }
        }
        Ok(())
    }

    /// Starts the app, which serves port 8080.
    pub fn start_app(&mut self, node: &Node) -> Result<()> {
        let app = self.start_container(node, "app", super::APP)?;
        serve(app, Bind::DUAL_WILDCARD, 8080).map(drop)
    }

    /// A container's process.
    pub fn container(&self, name: &str) -> Result<&Actor> {
        let container = self.containers.get(name);
        Ok(&container
            .with_context(|| format!("no container {name}"))?
            .actor)
    }

    /// The app's process.
    pub fn app(&self) -> Result<&Actor> {
        self.container("app")
    }

    /// The sandbox's network namespace.
    pub fn netns(&self) -> Result<&Netns> {
        Ok(&self.sandbox.as_ref().context("no sandbox")?.netns)
    }

    /// The runtime's ID of the sandbox.
    pub fn sandbox_id(&self) -> Result<&str> {
        Ok(&self.sandbox.as_ref().context("no sandbox")?.id)
    }

    /// Its addresses, the IPv4 one first.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        runtime::addresses(&self.sandbox.as_ref().context("no sandbox")?.result)
    }

    /// Its cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    const fn as_node_names(&self, user: User) -> User {
        match self.manifest.first_id {
            Some(first) => User::new(first + user.uid, first + user.gid),
            None => user,
        }
    }

    pub(super) fn container_cgroup(&self, node: &Node, id: &str) -> Result<PathBuf> {
        let path = self.cgroup.join(node.driver.container(id));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}
