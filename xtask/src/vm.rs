//! `cargo xtask test-vm`: tests the binary on other kernels, in virtual machines.

use std::{
    env,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    apt::{self, Need},
    build, paths, test,
};

mod initramfs;
mod kernel;
mod outcome;
mod qemu;
mod report;
mod root;
mod suite;

use initramfs::Guest;
use outcome::Outcome;
use qemu::Machine;
use report::Report;
use suite::{Choice, Suite};

/// Options of `cargo xtask test-vm`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run on this kernel only; may be repeated
    #[arg(long, value_parser = parse_kernel)]
    kernel: Vec<&'static Kernel>,
    /// Run only the smoke test
    #[arg(long, conflicts_with_all = ["all", "tests"])]
    smoke: bool,
    /// Run all kernel tests that fit into a virtual machine, which takes hours; the default is a selection
    #[arg(long, conflicts_with = "tests")]
    all: bool,
    /// Of all these tests, run those whose names contain this text; may be repeated
    #[arg(long, value_name = "FILTER")]
    tests: Vec<String>,
    /// Write the results into docs/kernels.md
    #[arg(long, conflicts_with_all = ["kernel", "smoke", "tests"])]
    write_docs: bool,
    /// Command to run there instead of the tests
    #[arg(last = true)]
    command: Vec<String>,
}

/// The expected result on a kernel.
enum Expectation {
    /// `interceptor check` finds nothing missing, and the tests pass.
    Works,
    /// `interceptor check` fails, and its output has these words.
    Lacks(&'static str),
}

/// A kernel to test on.
pub(crate) struct Kernel {
    /// The prefix of the version, or `newest`.
    name: &'static str,
    /// The Debian suites with this default kernel; of several, the newest.
    suites: &'static [&'static str],
    /// Parameters of its command line.
    parameters: &'static str,
    expectation: Expectation,
}

const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "6.1",
        suites: &["bookworm"],
        parameters: "",
        expectation: Expectation::Works,
    },
    Kernel {
        name: "6.12",
        suites: &["bookworm-backports"],
        parameters: "",
        expectation: Expectation::Works,
    },
    Kernel {
        name: "newest",
        suites: &["trixie-backports", "sid"],
        // Since 7.x, the storage of sockets is allocated by `kmalloc_nolock`, which always fails on a
        // processor without cmpxchg16b, such as the emulated one (`qemu.rs`), except from caches that
        // are debugged.
        parameters: "slab_debug=F,kmalloc-*",
        expectation: Expectation::Works,
    },
    Kernel {
        name: "5.10",
        suites: &["bullseye"],
        parameters: "",
        expectation: Expectation::Lacks("netns cookie"),
    },
];

/// The name of the smoke test's binary, on the host and in the guest.
const SMOKE: &str = "vm-smoke";

/// Parses the name of a kernel.
fn parse_kernel(name: &str) -> Result<&'static Kernel, String> {
    let names = || KERNELS.map(|kernel| kernel.name).join(", ");
    KERNELS
        .iter()
        .find(|kernel| kernel.name == name)
        .ok_or_else(|| format!("expected one of the kernels {}", names()))
}

/// Runs the tests, or a command, on the chosen kernels.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        env::consts::ARCH == "x86_64",
        "the kernels are built for x86-64: run this on an x86-64 machine"
    );
    prepare()?;
    let interceptor = build::tested()?;
    if !options.command.is_empty() {
        let command = options.command.join(" ");
        return options
            .kernels()
            .into_iter()
            .try_for_each(|kernel| kernel.run(&interceptor, &command));
    }
    let suite = Suite::build(&options.choice())?;
    let results = on_all_processors(options.kernels(), |kernel| {
        kernel.test(&interceptor, &suite)
    });
    let report = Report {
        suite: &suite,
        results: &results,
    };
    // The document has the failures too.
    let printed = report.print();
    if options.write_docs {
        report.write_document()?;
    }
    printed
}

impl Options {
    fn kernels(&self) -> Vec<&'static Kernel> {
        if self.kernel.is_empty() {
            KERNELS.iter().collect()
        } else {
            self.kernel.clone()
        }
    }

    fn choice(&self) -> Choice {
        if self.smoke {
            Choice::None
        } else if self.all {
            Choice::All
        } else if self.tests.is_empty() {
            Choice::Quick
        } else {
            Choice::Matching(self.tests.clone())
        }
    }
}

fn prepare() -> Result<()> {
    test::prepare()?;
    apt::ensure(&[
        Need::new("/bin/busybox", "busybox-static"),
        Need::new("cpio", "cpio"),
        Need::new("modprobe", "kmod"),
        Need::new("qemu-system-x86_64", "qemu-system-x86"),
        Need::new("readelf", "binutils"),
    ])
}

/// Runs `work` for each kernel: on each processor one at a time, because a guest uses one.
fn on_all_processors<T: Send>(
    kernels: Vec<&'static Kernel>,
    work: impl Fn(&Kernel) -> T + Sync,
) -> Vec<(&'static Kernel, T)> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let waiting = Mutex::new(kernels.into_iter());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next()
    };
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                while let Some(kernel) = next() {
                    let result = work(kernel);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.push((kernel, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(kernel, _)| KERNELS.iter().position(|one| one.name == kernel.name));
    results
}

impl Kernel {
    fn test(&self, interceptor: &Path, suite: &Suite) -> Result<Outcome> {
        match self.expectation {
            Expectation::Works => self.test_works(interceptor, suite),
            Expectation::Lacks(what) => self.test_lacks(interceptor, what),
        }
    }

    fn test_works(&self, interceptor: &Path, suite: &Suite) -> Result<Outcome> {
        let smoke = build::built(SMOKE);
        let command = format!("interceptor check && {SMOKE}");
        let mut guest = Guest::new(vec![interceptor.to_owned(), smoke], command);
        guest.time_limit = suite.time_limit;
        if !suite.tests.is_empty() {
            guest.command = format!("{} && {}", guest.command, suite::SCRIPT);
            suite.equip(&mut guest)?;
        }
        self.boot(&guest)
    }

    fn test_lacks(&self, interceptor: &Path, what: &str) -> Result<Outcome> {
        let guest = Guest::new(vec![interceptor.to_owned()], "interceptor check".to_owned());
        let outcome = self.boot(&guest)?;
        ensure!(
            outcome.exit_code != 0 && outcome.output.contains(what),
            "`interceptor check` does not report that {what} is missing",
        );
        Ok(outcome)
    }

    /// Runs one command, with the interceptor binary in `/bin`.
    fn run(&self, interceptor: &Path, command: &str) -> Result<()> {
        let guest = Guest::new(vec![interceptor.to_owned()], command.to_owned());
        let exit_code = self.boot(&guest)?.exit_code;
        ensure!(
            exit_code == 0,
            "kernel {}: exit code {exit_code}",
            self.name
        );
        Ok(())
    }

    fn boot(&self, guest: &Guest) -> Result<Outcome> {
        let dir = paths::target().join("vm").join(self.name);
        let kernel = kernel::fetch(self.suites, &dir)?;
        let initramfs = dir.join("initramfs.cpio");
        initramfs::write(&initramfs, guest, &kernel)?;
        qemu::run(&Machine {
            name: self.name,
            kernel: &kernel.image()?,
            initramfs: &initramfs,
            parameters: self.parameters,
            time_limit: guest.time_limit,
        })
    }
}
