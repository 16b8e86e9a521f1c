//! Every `bpf(2)`, netlink and file call of a command or of the agent is made to fail once. Afterwards
//! either nothing has changed, or the next run completes the operation; a pod is never partly captured,
//! and never uncaptured without an error.
//!
//! By default a fixed selection of the calls fails. `INTERCEPTOR_TEST_FAULTS=all` makes the first of all
//! equal calls fail, `every` each call; a number sets how many of an operation's calls fail.

mod agent;
mod command_line;
mod scene;
mod upgrade;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Output,
};

use interceptor_testkit::{
    bpf::pins,
    command::output,
    faults::{Fault, Recorded, Supervisor},
};

/// How many calls of one operation fail by default: more would take too long for every change.
const DEFAULT_FAULTS: usize = 8;

/// The faults of these calls that a test injects.
fn chosen(recorded: &Recorded) -> Vec<Fault> {
    let all = recorded.first_faults();
    let most = match env::var("INTERCEPTOR_TEST_FAULTS").as_deref() {
        Ok("every") => return recorded.faults(),
        Ok("all") => return all,
        Ok(number) => number.parse().expect("a number, `all` or `every`"),
        Err(_) => DEFAULT_FAULTS,
    };
    spread(all, most)
}

/// At most this many of them, at equal distances.
fn spread(faults: Vec<Fault>, most: usize) -> Vec<Fault> {
    let step = faults.len().div_ceil(most.max(1)).max(1);
    faults.into_iter().step_by(step).collect()
}

/// One command, of which one call after the other fails.
struct Trial<'a> {
    name: &'static str,
    program: &'a Path,
    arguments: Vec<String>,
    /// Creates the state that the command changes.
    prepare: &'a dyn Fn(),
    /// Checks the state after a command with a fault, and after the next one.
    check: &'a dyn Fn(&Run<'_>),
}

/// A command with a fault.
struct Run<'a> {
    fault: &'a Fault,
    /// Whether the command made the call that fails.
    is_reached: bool,
    output: Output,
}

impl Run<'_> {
    /// Whether the command reported success, in spite of the fault.
    fn has_succeeded(&self) -> bool {
        self.output.status.success()
    }

    /// It has exited by itself, and a failure has an error message.
    #[track_caller]
    fn expect_an_exit(&self) {
        let errors = String::from_utf8_lossy(&self.output.stderr);
        assert!(self.output.status.code().is_some(), "it was killed: {self}");
        assert!(!errors.contains("panicked"), "{self}");
        let is_named = errors.contains("interceptor: ");
        assert!(self.has_succeeded() || is_named, "{self}");
    }
}

impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = String::from_utf8_lossy(&self.output.stderr);
        writeln!(f, "{}: {}\n{errors}", self.fault, self.output.status)
    }
}

impl Trial<'_> {
    fn run(&self, supervisor: &Supervisor, fault: Option<&Fault>) -> Output {
        (self.prepare)();
        supervisor.arm(fault.cloned());
        let mut command = supervisor.command(self.program).expect("a launcher");
        output(command.args(&self.arguments), "").expect("a run")
    }

    /// Runs the command without a fault, and returns its calls.
    #[track_caller]
    fn record(&self) -> Recorded {
        let supervisor = Supervisor::start().expect("a supervisor");
        let output = self.run(&supervisor, None);
        assert!(output.status.success(), "{}: {output:?}", self.name);
        let recorded = supervisor.recorded();
        assert!(!recorded.is_empty(), "{}: no calls", self.name);
        recorded
    }

    /// Runs the command once with each of the faults.
    #[track_caller]
    fn inject(&self, faults: &[Fault]) {
        let supervisor = Supervisor::start().expect("a supervisor");
        let mut tally = Tally::default();
        for fault in faults {
            let output = self.run(&supervisor, Some(fault));
            let is_reached = supervisor.has_failed();
            let run = Run {
                fault,
                is_reached,
                output,
            };
            run.expect_an_exit();
            tally.count(is_reached, run.has_succeeded());
            (self.check)(&run);
        }
        tally.expect_enough(self.name);
    }
}

/// The number of faults, and their effects.
#[derive(Debug, Default)]
struct Tally {
    all: usize,
    /// A run differs from the recorded one by a few calls, such as retries.
    not_reached: usize,
    tolerated: usize,
}

impl Tally {
    fn count(&mut self, is_reached: bool, has_succeeded: bool) {
        self.all += 1;
        self.not_reached += usize::from(!is_reached);
        self.tolerated += usize::from(is_reached && has_succeeded);
    }

    #[track_caller]
    fn expect_enough(&self, name: &str) {
        println!("{name}: {self:?}");
        assert!(self.not_reached * 4 <= self.all, "{name}: {self:?}");
        assert!(self.tolerated < self.all, "{name}: {self:?}");
    }
}

/// The pins of all pods.
fn pinned() -> Vec<PathBuf> {
    let mut found = pins::entries_below(&pins::dir()).expect("the pins");
    found.sort();
    found
}
