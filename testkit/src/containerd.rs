//! A real container runtime on the node: containerd and runc, with the requests that kubelet sends.
//!
//! containerd and the agent share a mount namespace and a cgroup namespace, as on a node of kind:
//! the root of `/sys/fs/cgroup` is the node's cgroup, and `/run` is a directory of the node. So all
//! mounts and processes of containerd are deleted with the node's processes.
//!
//! There are two differences to other nodes. Kubelet's cgroup driver is `cgroupfs`. And the
//! containers have no limits: where cgroups are hybrid, cgroup2 has none of the controllers, and
//! runc could not set the CPU share that containerd gives every sandbox. A script before runc
//! removes it. All else is as on a machine with cgroup2 only.

mod cri;
mod image;
mod messages;
mod sandbox;

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use cri::Cri;
use messages::{ImageSpec, ImageStatusRequest, ImageStatusResponse, StatusRequest, StatusResponse};
pub use sandbox::Sandbox;

use crate::{
    command::{bounded, run},
    interceptor,
    janitor::{self, Task},
    lab::wait_until,
    node::{AgentPlacement, AgentProcess, Node},
    spawn::spawn,
};

/// Joins the node's cgroup, which becomes the root, and its network namespace.
const START: &str = r#"
echo $$ > "$1/cgroup.procs" || exit
exec nsenter --net="$2" unshare --mount --cgroup sh -ec "$3" sh "$4"
"#;

/// Mounts the node's directories and executes containerd.
const CONTAINERD: &str = r#"
dir=$1
umount --recursive /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
own="$dir/run/${dir#/run/}"
mkdir --parents "$own" /sys/fs/cgroup/system.slice/containerd
mount --bind "$dir" "$own"
mount --rbind "$dir/run" /run
echo $$ > /sys/fs/cgroup/system.slice/containerd/cgroup.procs
exec env --default-signal=INT,TERM setpriv --pdeathsig=KILL \
    containerd --config "$dir/containerd.toml"
"#;

/// Runs runc without the CPU share that containerd gives each sandbox.
const RUNC: &str = r#"#!/bin/sh
for word; do
    [ "$before" = --bundle ] && sed -i 's/"cpu":{"shares":2}/"cpu":{}/' "$word/config.json"
    before=$word
done
exec runc "$@"
"#;

/// containerd on a node. Killed when dropped; the containers are killed with the node's cgroup.
pub struct Containerd {
    child: Child,
    cri: Cri,
    dir: PathBuf,
}

impl Containerd {
    /// Starts it and waits until it is ready, with the image of the containers.
    pub fn start(node: &Node) -> Result<Self> {
        let dir = node.dir().to_owned();
        configure(node)?;
        janitor::register(&Task::Sweep)?;
        let mut containerd = Self {
            child: start(node)?,
            cri: Cri::new(&socket(&dir))?,
            dir,
        };
        containerd.get_ready().with_context(|| containerd.log())?;
        Ok(containerd)
    }

    fn get_ready(&mut self) -> Result<()> {
        wait_until("containerd", || {
            ensure!(self.child.try_wait()?.is_none(), "containerd has exited");
            Ok(self.status().is_ok_and(|status| is_ready(&status)))
        })?;
        self.import()
    }

    /// Imports the image. The CRI plugin registers it a little later; until then it would query a
    /// registry.
    fn import(&self) -> Result<()> {
        let archive = self.dir.join("image.tar");
        fs::write(&archive, image::archive()?)?;
        let mut ctr = bounded("ctr");
        ctr.arg("--address").arg(socket(&self.dir));
        ctr.args(["--namespace", "k8s.io", "images", "import"]);
        ctr.args(["--snapshotter", "native"]).arg(&archive);
        run(&mut ctr, "")?;
        wait_until("the image", || {
            let request = ImageStatusRequest {
                image: Some(spec()),
            };
            let path = "/runtime.v1.ImageService/ImageStatus";
            let status: ImageStatusResponse = self.cri.call_at(path, request)?;
            Ok(status.image.is_some())
        })
    }

    fn status(&self) -> Result<StatusResponse> {
        self.cri.call("Status", StatusRequest { verbose: true })
    }

    /// Starts the agent in containerd's namespaces, and waits until it is ready and containerd has
    /// loaded the network configuration with the agent's plugin.
    pub fn start_ready_agent(&self, node: &Node, options: &[&str]) -> Result<AgentProcess> {
        let binary = interceptor::binary();
        let mut agent = node.start_agent_in(&self.placement(node), &binary, options)?;
        agent.wait_until_ready()?;
        wait_until("the plugin", || {
            let status = self.status()?;
            let network = status.info.get("cniconfig").context("no cniconfig")?;
            Ok(network.contains("interceptor-cni"))
        })?;
        Ok(agent)
    }

    fn placement(&self, node: &Node) -> AgentPlacement {
        let of_containerd = |kind: &str| format!("/proc/{}/ns/{kind}", self.child.id());
        AgentPlacement {
            namespaces: vec![
                format!("--net={}", node.host.path().display()),
                format!("--mount={}", of_containerd("mnt")),
                format!("--cgroup={}", of_containerd("cgroup")),
            ],
            cgroup_root: "/sys/fs/cgroup".into(),
        }
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(log(&self.dir)).unwrap_or_default()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

fn start(node: &Node) -> Result<Child> {
    let output = File::create(log(node.dir()))?;
    let mut command = Command::new("sh");
    command
        .args(["-c", START, "sh"])
        .args([node.cgroup.path(), node.host.path()])
        .arg(CONTAINERD)
        .arg(node.dir())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    spawn(command).context("containerd")
}

/// Writes containerd's configuration, and the script that it runs as runc.
fn configure(node: &Node) -> Result<()> {
    let dir = node.dir();
    let runc = dir.join("runc");
    fs::write(&runc, RUNC)?;
    fs::set_permissions(&runc, fs::Permissions::from_mode(0o755))?;
    fs::write(dir.join("containerd.toml"), configuration(node, &runc))?;
    Ok(())
}

/// No plugin that needs a kernel module or a directory of the machine. runc must not lower its
/// processes' OOM score: a process in a container is not permitted to.
fn configuration(node: &Node, runc: &Path) -> String {
    let dir = node.dir().display();
    let (conf, bin) = (node.runtime.conf.display(), node.runtime.bin.display());
    let (socket, runc) = (socket(node.dir()), runc.display());
    let (socket, image) = (socket.display(), image::NAME);
    format!(
        r#"version = 2
root = "{dir}/containerd"
state = "/run/containerd"
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.overlayfs",
    "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "{conf}"
bin_dir = "{bin}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{runc}"
"#
    )
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("containerd.sock")
}

fn log(dir: &Path) -> PathBuf {
    dir.join("containerd.log")
}

fn spec() -> ImageSpec {
    ImageSpec {
        image: image::NAME.to_owned(),
    }
}

/// Whether the runtime and the network are ready, which kubelet waits for.
fn is_ready(status: &StatusResponse) -> bool {
    let conditions = status.status.as_ref().map(|status| &status.conditions);
    conditions.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.status))
}
