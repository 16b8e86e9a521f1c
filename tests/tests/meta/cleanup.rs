//! The tests' fixtures are deleted when the tests exit, however they do.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use interceptor_testkit::{command::own_binary, interceptor, lab::wait_until, spawn::spawn};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Time limit of the cleanup.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(20);

/// A test process that has created a world.
struct Victim {
    child: Child,
    cgroup: PathBuf,
    processes: Vec<u32>,
    namespaces: Vec<u64>,
}

impl Victim {
    fn new(world: &str, end: &str) -> Result<Self> {
        let mut command = Command::new(own_binary("interceptor-test-victim")?);
        command
            .args([world, end])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = spawn(command)?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        let cgroup = PathBuf::from(line.trim());
        let processes = processes(&cgroup);
        let namespaces = processes.iter().filter_map(|pid| namespace(*pid)).collect();
        Ok(Self {
            child,
            cgroup,
            processes,
            namespaces,
        })
    }

    fn kill(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// Its leftovers.
    fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        if self.cgroup.exists() {
            left.push(self.cgroup.display().to_string());
        }
        // An exited process has no namespaces: it only waits for init, which may take some time.
        let alive = |pid: &&u32| namespace(**pid).is_some();
        left.extend(
            self.processes
                .iter()
                .filter(alive)
                .map(|pid| format!("process {pid}")),
        );
        let used = all_namespaces();
        let used = self.namespaces.iter().filter(|inode| used.contains(inode));
        left.extend(used.map(|inode| format!("net:[{inode}]")));
        left
    }

    /// Waits until nothing is left, or the time limit.
    fn expect_nothing_left(&mut self) {
        self.child.wait().expect("the victim exits");
        let deadline = Instant::now() + CLEANUP_TIMEOUT;
        while !self.leftovers().is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.leftovers(), Vec::<String>::new());
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail only for a victim that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Every process below `cgroup`.
fn processes(cgroup: &Path) -> Vec<u32> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|line| line.parse().ok());
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    own.chain(below.flat_map(|entry| processes(&entry.path())))
        .collect()
}

fn namespace(pid: u32) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino())
}

fn all_namespaces() -> Vec<u64> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(namespace).collect()
}

/// The victim's world exists before its exit: otherwise nothing would be tested.
fn world(world: &str, end: &str) -> Victim {
    let victim = Victim::new(world, end).expect("a victim");
    if end == "wait" {
        assert!(victim.cgroup.exists());
        assert!(victim.processes.len() > 5, "{:?}", victim.processes);
        assert!(!victim.leftovers().is_empty());
    }
    victim
}

#[test]
fn after_a_test_that_passes() {
    world("iptables", "end").expect_nothing_left();
}

#[test]
fn after_a_test_that_fails() {
    world("iptables", "panic").expect_nothing_left();
}

#[test]
fn after_a_test_that_is_killed() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let mut victim = world("iptables", "wait");
        victim.kill(signal).expect("a signal");
        victim.expect_nothing_left();
    }
}

/// Interceptor is detached too: the status has none of the victim's namespaces.
#[test]
fn after_a_test_of_interceptor() {
    for end in ["end", "panic"] {
        world("interceptor", end).expect_nothing_left();
    }
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let mut victim = world("interceptor", "wait");
        assert!(is_attached(&victim), "{}", status());
        victim.kill(signal).expect("a signal");
        victim.expect_nothing_left();
        let detached = wait_until("the detach", || Ok(!is_attached(&victim)));
        detached.unwrap_or_else(|error| panic!("{error}: {}", status()));
    }
}

fn status() -> String {
    let output = interceptor::try_run(["status", "-o", "json"]).expect("status");
    // 3 means that some pod is not completely captured: another test's may be just being deleted.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_attached(victim: &Victim) -> bool {
    let status = status();
    let cgroup = victim.cgroup.file_name().expect("a name").to_string_lossy();
    status.contains(&*cgroup)
}
