//! A container as a process: in the pod's network namespace, with a root file system and a cgroup of
//! its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Container, SecurityContext};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    ContainerRole, Node, ObjectPod,
    arguments::{expand, variables},
    image::Image,
};
use crate::{
    actor::{Actor, User},
    cgroup,
    lab::wait_until,
    spawn::spawn,
};

/// Joins the cgroup and the network namespace, and enters a mount namespace of its own.
const SCRIPT: &str = r#"
echo $$ > "$1/cgroup.procs" || exit
netns=$2
shift 2
exec nsenter --net="$netns" unshare --mount --propagation=private "$@"
"#;

/// Mounts the root file system, then changes to it. The arguments are its directory, `ro` or `rw`,
/// pairs of names and programs, `--`, and the command.
const ROOT_SCRIPT: &str = r#"
root=$1 mode=$2 bin=$1/usr/local/bin
shift 2
mount --bind / "$root"
mount -t tmpfs -o mode=755 none "$bin"
while [ "$1" != -- ]; do
    touch "$bin/$1"
    mount --bind "$2" "$bin/$1"
    shift 2
done
shift
mount --rbind /dev "$root/dev"
mount --bind /proc "$root/proc"
mount -o "remount,bind,$mode" "$bin"
mount -o "remount,bind,$mode" "$root"
exec chroot "$root" "$@"
"#;

/// What every image has in its environment.
const PATH: &str = "PATH=/usr/local/bin:/usr/bin:/bin";

/// A running container. Killed when dropped.
pub struct ContainerProcess {
    /// Its name.
    pub name: String,
    pub(super) role: ContainerRole,
    child: Child,
    output: BufReader<ChildStdout>,
    cgroup: PathBuf,
    log: PathBuf,
}

impl ContainerProcess {
    pub(super) fn start(
        node: &Node,
        pod: &ObjectPod,
        container: &Container,
        role: ContainerRole,
    ) -> Result<Self> {
        let id = node.new_id();
        let root = node.dir().join(format!("root-{id}"));
        fs::create_dir(&root)?;
        let log = node.dir().join(format!("{}-{id}.log", container.name));
        let cgroup = pod.pod.container_cgroup(node, &id)?;
        let security = container.security_context.clone().unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .args([&*cgroup, pod.pod.netns()?.path()])
            .args(["sh", "-euc", ROOT_SCRIPT, "sh"])
            .args(root_arguments(&root, pod.image(container)?, &security))
            .args(environment(container, pod)?)
            .args(privileges(&security, pod.image(container)?.user)?)
            .args(program(container, pod)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        let mut child = spawn(command)?;
        Ok(Self {
            name: container.name.clone(),
            role,
            output: BufReader::new(child.stdout.take().context("stdout")?),
            child,
            cgroup,
            log,
        })
    }

    /// Its process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has exited.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it has exited successfully.
    pub fn wait_for_success(&mut self) -> Result<()> {
        let status = self.wait()?;
        ensure!(status.success(), "{status}: {}", self.log());
        Ok(())
    }

    /// Sends SIGTERM, and waits until it has exited.
    pub fn terminate(&mut self) -> Result<()> {
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, Signal::SIGTERM)?;
        self.wait().map(drop)
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let mut status = None;
        wait_until("the container exits", || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        status.context("no status")
    }

    /// The next line of its output.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "{} has exited: {}", self.name, self.log());
        Ok(line)
    }

    /// The other end of a container that runs `actor here`. Only once for each container.
    pub fn actor(&mut self) -> Result<Actor> {
        let input = self.child.stdin.take().context("stdin")?;
        let output = self.output.get_ref();
        let output = nix::unistd::dup(output)?;
        Actor::beyond_pipes(&self.name, OwnedFd::from(input).into(), output.into())
    }

    /// What it has written to stderr.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for ContainerProcess {
    fn drop(&mut self) {
        // Kills its processes as well.
        if let Err(error) = cgroup::remove(&self.cgroup) {
            eprintln!("{}: {error}", self.cgroup.display());
        }
        // Fails only for a child that was waited for before.
        let _status = self.child.wait();
    }
}

fn root_arguments(root: &Path, image: &Image, security: &SecurityContext) -> Vec<String> {
    let mode = match security.read_only_root_filesystem {
        Some(true) => "ro",
        _ => "rw",
    };
    let mut arguments = vec![root.display().to_string(), mode.to_owned()];
    for (name, program) in &image.programs {
        arguments.extend([name.clone(), program.display().to_string()]);
    }
    arguments.push("--".to_owned());
    arguments
}

/// The pod's variables and nothing else, with signals as at the start of a process.
fn environment(container: &Container, pod: &ObjectPod) -> Result<Vec<String>> {
    let variables = all_variables(container, pod)?;
    let own = ["env", "-i", "--default-signal=INT,TERM", PATH].map(str::to_owned);
    let pairs = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    Ok(own.into_iter().chain(pairs).collect())
}

fn all_variables(container: &Container, pod: &ObjectPod) -> Result<BTreeMap<String, String>> {
    let mut object = pod.object.clone();
    let addresses = pod.pod.addresses()?;
    object["status"]["podIP"] = json!(pod.ip()?);
    object["status"]["podIPs"] = json!(addresses);
    variables(container, &object)
}

/// User, group and capabilities, as options of setpriv.
fn privileges(security: &SecurityContext, image: User) -> Result<Vec<String>> {
    let id = |chosen: Option<i64>, default: u32| chosen.unwrap_or_else(|| default.into());
    let uid = id(security.run_as_user, image.uid);
    ensure!(
        security.run_as_non_root != Some(true) || uid != 0,
        "the container has runAsNonRoot and the user root"
    );
    let mut options = vec![
        "setpriv".to_owned(),
        format!("--reuid={uid}"),
        format!("--regid={}", id(security.run_as_group, image.gid)),
        "--clear-groups".to_owned(),
        "--pdeathsig=KILL".to_owned(),
    ];
    if security.allow_privilege_escalation == Some(false) {
        options.push("--no-new-privs".to_owned());
    }
    let capabilities = serde_json::to_value(&security.capabilities)?;
    if capabilities == Value::Null {
        return Ok(options);
    }
    ensure!(
        capabilities == json!({"drop": ["ALL"]}),
        "these capabilities cannot be set here: {capabilities}"
    );
    options.extend(["--inh-caps=-all", "--bounding-set=-all"].map(str::to_owned));
    Ok(options)
}

/// Command and arguments, expanded.
fn program(container: &Container, pod: &ObjectPod) -> Result<Vec<String>> {
    let variables = all_variables(container, pod)?;
    let command = container.command.iter().flatten();
    let words: Vec<_> = command.chain(container.args.iter().flatten()).collect();
    ensure!(!words.is_empty(), "an image here has no entry point");
    Ok(words.iter().map(|word| expand(word, &variables)).collect())
}
