//! A process that dials on and on, while a test does something.

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

/// How long it goes on at most.
const LIMIT: Duration = Duration::from_mins(1);
/// How long it rests between two dials: others need the processor too.
const DIAL_INTERVAL: Duration = Duration::from_micros(200);
/// How much of the order is told.
const MAX_TURNS: usize = 1000;
/// How long one connection may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// Whom to dial, and how often.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The first destination.
    pub first: SocketAddr,
    /// How many addresses there are, each by one above the last; dialled in turn.
    pub destinations: u32,
    /// How many rounds to make, if it is not told to stop before.
    pub rounds: u32,
}

/// Who answered, as [`outcome`] tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// How often.
    pub counts: BTreeMap<String, u32>,
    /// In which order: each time that it was somebody else than before.
    pub turns: Vec<String>,
}

impl Outcomes {
    fn add(&mut self, outcome: String) {
        if self.turns.last() != Some(&outcome) && self.turns.len() < MAX_TURNS {
            self.turns.push(outcome.clone());
        }
        *self.counts.entry(outcome).or_default() += 1;
    }

    /// Everybody who answered.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.counts.keys().map(String::as_str).collect()
    }

    /// How many dials there were.
    #[must_use]
    pub fn dials(&self) -> u32 {
        self.counts.values().sum()
    }
}

/// Where and as whom to dial.
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
}

impl Dialler {
    /// Starts one, and returns when somebody has answered.
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
        let mut dialler = Self { child, output };
        ensure!(
            !dialler.line()?.is_empty(),
            "{plan:?}: the dialler has ended"
        );
        Ok(dialler)
    }

    /// Tells it to stop, and answers who answered.
    pub fn stop(mut self) -> Result<Outcomes> {
        drop(self.child.stdin.take());
        self.outcomes()
    }

    /// Waits until it has made all its rounds, and answers who answered.
    pub fn finish(mut self) -> Result<Outcomes> {
        self.outcomes()
    }

    fn outcomes(&mut self) -> Result<Outcomes> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the dialler says {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Dialler {
    fn drop(&mut self) {
        // Both fail only for a child that has been waited for.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The dialler's life: `order` is its command line.
pub fn run(config: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let config: DialConfig = serde_json::from_str(config)?;
    config.enter()?;
    let mut outcomes = Outcomes::default();
    let end = Instant::now() + LIMIT;
    for number in 0..config.plan.rounds.saturating_mul(config.plan.destinations) {
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
    /// One destination, dialled until told to stop.
    pub fn endless(to: &str) -> Result<Self> {
        Ok(Self {
            first: to.parse().with_context(|| to.to_owned())?,
            destinations: 1,
            rounds: u32::MAX,
        })
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
        // A change of credentials clears it.
        Ok(set_pdeathsig(Signal::SIGKILL)?)
    }
}

fn is_stop_requested() -> Result<bool> {
    let stdin = std::io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

/// Who answers at `to`: a proxy that was told something else says so.
fn dial(to: SocketAddr) -> Result<String> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_read_timeout(Some(CONNECTION_TIMEOUT))?;
    // Closing resets: thousands of connections that wait for late packets slow everything down.
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

/// Who has introduced himself: `remote:80`, or a proxy with what it was told was the original
/// destination: `proxy:15001 for 10.2.0.9:80`.
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
