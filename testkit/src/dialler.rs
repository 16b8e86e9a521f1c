//! A process that dials repeatedly while a test does something.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{self, Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use crate::{
    actor::{User, process::above, protocol::Introduction},
    command::own_binary,
    netns::Netns,
    spawn::spawn,
};

/// The maximum duration.
const MAX_DURATION: Duration = Duration::from_mins(5);
/// The pause between two dials: other processes need the CPU too.
const DIAL_INTERVAL: Duration = Duration::from_micros(200);
/// The maximum length of the recorded order.
const MAX_TURNS: usize = 1000;
/// Time limit of one connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// The destinations, and the number of dials.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The first destination.
    pub first: SocketAddr,
    /// The number of addresses, consecutive from the first; dialled in turn.
    pub destinations: u32,
    /// The number of rounds, unless it is stopped before.
    pub rounds: u32,
}

/// The servers that responded, in [`outcome`]'s words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// The number of connections by server.
    pub counts: BTreeMap<String, u32>,
    /// Their order: each entry is a change of the server.
    pub turns: Vec<String>,
}

impl Outcomes {
    fn add(&mut self, outcome: String) {
        if self.turns.last() != Some(&outcome) && self.turns.len() < MAX_TURNS {
            self.turns.push(outcome.clone());
        }
        *self.counts.entry(outcome).or_default() += 1;
    }

    /// The servers that responded.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.counts.keys().map(String::as_str).collect()
    }

    /// The number of dials.
    #[must_use]
    pub fn dials(&self) -> u32 {
        self.counts.values().sum()
    }
}

/// The namespace, cgroup and user to dial from, and the plan.
#[derive(Debug, Serialize, Deserialize)]
struct DialConfig {
    plan: Plan,
    netns: PathBuf,
    cgroup: PathBuf,
    uid: u32,
    gid: u32,
}

/// The test's side. Killed when dropped.
pub struct Dialler {
    child: Child,
    output: BufReader<ChildStdout>,
    /// The number of dials of all rounds.
    planned: u32,
}

impl Dialler {
    /// Starts one, and returns after its first connection.
    pub fn start(user: User, netns: &Netns, cgroup: &Path, plan: &Plan) -> Result<Self> {
        let config = DialConfig {
            plan: plan.clone(),
            netns: netns.path().to_owned(),
            cgroup: cgroup.to_owned(),
            uid: user.uid,
            gid: user.gid,
        };
        let mut command = Command::new(own_binary("interceptor-test-dialler")?);
        command
            .arg(serde_json::to_string(&config)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = spawn(command)?;
        let output = BufReader::new(child.stdout.take().context("stdout")?);
        let planned = plan.dials();
        let mut dialler = Self {
            child,
            output,
            planned,
        };
        ensure!(
            !dialler.line()?.is_empty(),
            "{plan:?}: the dialler has exited"
        );
        Ok(dialler)
    }

    /// Stops it, and returns the servers that responded.
    pub fn stop(mut self) -> Result<Outcomes> {
        drop(self.child.stdin.take());
        self.outcomes()
    }

    /// Waits until it has completed all rounds, and returns the servers that responded.
    pub fn finish(mut self) -> Result<Outcomes> {
        let outcomes = self.outcomes()?;
        let (dials, planned) = (outcomes.dials(), self.planned);
        ensure!(
            dials == planned,
            "{dials} of {planned} dials in {MAX_DURATION:?}"
        );
        Ok(outcomes)
    }

    fn outcomes(&mut self) -> Result<Outcomes> {
        let line = self.line()?;
        serde_json::from_str(&line)
            .with_context(|| format!("unexpected output of the dialler: {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Dialler {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The dialler's main function: `config` is its command line.
pub fn run(config: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let config: DialConfig = serde_json::from_str(config)?;
    config.enter()?;
    let mut outcomes = Outcomes::default();
    let end = Instant::now() + MAX_DURATION;
    for number in 0..config.plan.dials() {
        let to = config.plan.destination(number % config.plan.destinations);
        outcomes.add(dial(to)?);
        if number == 0 {
            println!("begun");
        }
        thread::sleep(DIAL_INTERVAL);
        if is_stop_requested()? || Instant::now() > end {
            break;
        }
    }
    println!("{}", serde_json::to_string(&outcomes)?);
    Ok(())
}

impl Plan {
    /// One destination, dialled until stopped.
    pub fn endless(to: &str) -> Result<Self> {
        Ok(Self {
            first: to.parse().with_context(|| to.to_owned())?,
            destinations: 1,
            rounds: u32::MAX,
        })
    }

    /// The number of dials of all rounds.
    fn dials(&self) -> u32 {
        self.rounds.saturating_mul(self.destinations)
    }

    fn destination(&self, number: u32) -> SocketAddr {
        above(self.first, number)
    }
}

impl DialConfig {
    fn enter(&self) -> Result<()> {
        fs::write(self.cgroup.join("cgroup.procs"), process::id().to_string())?;
        setns(File::open(&self.netns)?, CloneFlags::CLONE_NEWNET)?;
        setgroups(&[])?;
        setgid(Gid::from_raw(self.gid))?;
        setuid(Uid::from_raw(self.uid))?;
        // A change of credentials resets it.
        Ok(set_pdeathsig(Signal::SIGKILL)?)
    }
}

fn is_stop_requested() -> Result<bool> {
    let stdin = std::io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

/// The server that responds at `to`. For a proxy with another original destination, that too.
fn dial(to: SocketAddr) -> Result<String> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_read_timeout(Some(CONNECTION_TIMEOUT))?;
    // Closing resets: thousands of connections in TIME_WAIT slow everything down.
    socket.set_linger(Some(Duration::ZERO))?;
    let mut line = String::new();
    let received = socket
        .connect(&to.into())
        .and_then(|()| BufReader::new((&socket).take(4096)).read_line(&mut line));
    Ok(match received {
        Ok(_) => outcome(&line)?
            .trim_end_matches(&format!(" for {to}"))
            .to_owned(),
        Err(error) => error.to_string(),
    })
}

/// The server of an introduction: `remote:80`, or a proxy with the original destination that it
/// got: `proxy:15001 for 10.2.0.9:80`.
pub fn outcome(line: &str) -> Result<String> {
    if line.is_empty() {
        return Ok("closed".to_owned());
    }
    let introduction: Introduction = serde_json::from_str(line).with_context(|| line.to_owned())?;
    if !introduction.server.starts_with("proxy") {
        return Ok(introduction.server);
    }
    let original = if introduction.original_v4.contains(':') {
        introduction.original_v4
    } else {
        introduction.original_v6
    };
    Ok(format!("{} for {original}", introduction.server))
}
