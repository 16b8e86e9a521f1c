//! The process `interceptor observe`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{interceptor, spawn::spawn};

use crate::{Direction, Pod, workloads::setup::connect};

/// Time limit of its start.
const TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// `interceptor observe`, ended when dropped.
pub(super) struct Observer {
    process: Child,
    shown: Arc<AtomicU64>,
}

impl Observer {
    /// Starts one, and waits until it shows connections.
    pub(super) fn start(pod: &Pod) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL").arg(interceptor::binary());
        command.args(["observe", "-o", "json", "--netns"]);
        command.arg(pod.netns().path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = spawn(command)?;
        let stdout = process.stdout.take().context("no standard output")?;
        let shown = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&shown);
        thread::spawn(move || {
            for _line in BufReader::new(stdout).lines().map_while(Result::ok) {
                counter.fetch_add(1, Relaxed);
            }
        });
        let observer = Self { process, shown };
        let start = Instant::now();
        while observer.shown() == 0 {
            ensure!(start.elapsed() < TIMEOUT, "the observer shows nothing");
            connect(pod, Direction::Outbound, 1)?;
            thread::sleep(POLL_INTERVAL);
        }
        observer.settle();
        Ok(observer)
    }

    pub(super) fn shown(&self) -> u64 {
        self.shown.load(Relaxed)
    }

    /// Waits until it has shown what was connected before.
    fn settle(&self) {
        const QUIET: Duration = Duration::from_millis(200);
        let (mut last, mut since) = (self.shown(), Instant::now());
        while since.elapsed() < QUIET {
            thread::sleep(POLL_INTERVAL);
            if self.shown() != last {
                (last, since) = (self.shown(), Instant::now());
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // It may have ended.
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}
