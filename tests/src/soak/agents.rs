//! The node agent, of two builds, which are replaced by one another.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use interceptor_testkit::{
    interceptor,
    interruption::ensure_uninterrupted,
    node::{AgentProcess, Node},
};

use crate::{
    ledger::Ledger,
    patiently,
    traffic::{Fault, Kind},
};

/// Annotation changes take effect in running pods.
const OPTIONS: [&str; 1] = ["--live-annotations"];

/// How long an agent may take until it is ready. Long enough for a machine with a high load.
const READY_TIMEOUT: Duration = Duration::from_mins(5);
/// Time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How many lines of an agent's log an error has.
const EXCERPT: usize = 20;

/// A build of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Build {
    /// The tested one.
    This,
    /// One with another layout of its maps.
    Other,
}

impl Build {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::This => Self::Other,
            Self::Other => Self::This,
        }
    }

    pub(crate) fn binary(self) -> PathBuf {
        match self {
            Self::This => interceptor::binary(),
            Self::Other => interceptor::other_binary(),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::This => "this build",
            Self::Other => "the other build",
        }
    }
}

/// The node's agent.
pub(crate) struct Agents<'a> {
    node: &'a Node,
    ledger: Ledger,
    agent: AgentProcess,
    pub(crate) build: Build,
    /// How many agents have been started.
    pub(crate) generations: u32,
}

impl<'a> Agents<'a> {
    /// Starts the first one.
    pub(crate) fn start(node: &'a Node, ledger: &Ledger) -> Result<Self> {
        for build in [Build::This, Build::Other] {
            let binary = build.binary();
            ensure!(
                binary.is_file(),
                "{}: there is no such file: `cargo xtask soak` builds it",
                binary.display()
            );
        }
        let build = Build::This;
        let mut agents = Self {
            node,
            ledger: ledger.clone(),
            agent: node.start_agent_of(&build.binary(), &OPTIONS)?,
            build,
            generations: 1,
        };
        agents.until_ready()?;
        Ok(agents)
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.agent.kill()
    }

    /// Stops it as kubelet does.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        patiently(&mut || self.agent.terminate()).map(drop)
    }

    /// Starts one of `build` in the place of one that has exited.
    pub(crate) fn replace(&mut self, build: Build) -> Result<()> {
        let agent = self.node.start_agent_of(&build.binary(), &OPTIONS)?;
        self.succeed(agent, build);
        Ok(())
    }

    /// Starts one of `build`, then stops the running one, for which the new one waits.
    pub(crate) fn hand_over(&mut self, build: Build) -> Result<()> {
        let agent = self.node.start_agent_of(&build.binary(), &OPTIONS)?;
        self.terminate()?;
        self.succeed(agent, build);
        Ok(())
    }

    fn succeed(&mut self, agent: AgentProcess, build: Build) {
        self.check_log();
        self.agent = agent;
        self.build = build;
        self.generations += 1;
    }

    /// Waits until it is ready.
    pub(crate) fn until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            ensure_uninterrupted()?;
            if !self.agent.is_running()? {
                bail!("the agent has exited: {}", self.end_of_log());
            }
            let ready = self.agent.get_within("/readyz", REQUEST_TIMEOUT);
            if ready.is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the agent is not ready after {READY_TIMEOUT:?}: {}",
                self.end_of_log()
            );
            thread::sleep(POLL_INTERVAL);
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.agent.pid()
    }

    /// Records errors in the log of an agent that is replaced.
    pub(crate) fn check_log(&self) {
        let log = self.agent.log();
        // Libraries log refused requests as errors, too.
        let is_error =
            |line: &&str| line.contains(" ERROR interceptor") || line.contains("panicked at");
        for line in log.lines().filter(is_error) {
            self.ledger.violate(
                "the agent",
                Fault {
                    kind: Kind::Other,
                    what: format!("generation {}, {}", self.generations, self.build.name()),
                    expected: "no error in its log".to_owned(),
                    seen: line.to_owned(),
                },
            );
        }
    }

    /// The last lines of its log.
    pub(crate) fn end_of_log(&self) -> String {
        let log = self.agent.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(EXCERPT)..].join("\n")
    }

    /// Its response to a request.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let (status, body) = self.agent.get_within(path, REQUEST_TIMEOUT)?;
        ensure!(status == 200, "{path}: {status}");
        Ok(body)
    }

    /// The path of what a directory of its process has, such as its open files.
    pub(crate) fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid()))
    }

    /// The number of its open files.
    pub(crate) fn open_files(&self) -> Result<usize> {
        Ok(std::fs::read_dir(self.proc("fd"))?.count())
    }

    /// Its resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        let kib: u64 = kib.context("the agent has no VmRSS")?.parse()?;
        Ok(kib * 1024)
    }
}
