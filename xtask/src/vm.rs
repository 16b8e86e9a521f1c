//! `cargo xtask test-vm`: tests the binary on other kernels, in virtual machines.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    apt::{self, Need},
    architecture::Architecture,
    paths, test,
};

mod debian;
mod initramfs;
mod kernel;
mod outcome;
mod programs;
mod qemu;
mod report;
mod root;
mod suite;
mod userland;

use initramfs::Guest;
use outcome::Outcome;
use programs::Programs;
use qemu::Machine;
use report::Report;
use suite::{Choice, Suite};
use userland::Userland;

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

/// The architecture whose programs are copied from this machine.
const THIS_MACHINES: Architecture = Architecture::X86_64;

/// The expected result on a kernel.
enum Expectation {
    /// `interceptor check` finds nothing missing, and the tests pass.
    Works,
    /// `interceptor check` fails, and its output has these words.
    Lacks(&'static str),
}

/// A kernel to test on.
pub(crate) struct Kernel {
    /// The prefix of the version, or `newest`; the architecture, unless it is x86-64.
    name: &'static str,
    architecture: Architecture,
    /// The Debian suites with this default kernel; of several, the newest.
    suites: &'static [&'static str],
    /// Parameters of its command line.
    parameters: &'static str,
    expectation: Expectation,
}

const KERNELS: [Kernel; 6] = [
    Kernel {
        name: "6.1",
        architecture: Architecture::X86_64,
        suites: &["bookworm"],
        parameters: "",
        expectation: Expectation::Works,
    },
    Kernel {
        name: "6.12",
        architecture: Architecture::X86_64,
        suites: &["bookworm-backports"],
        parameters: "",
        expectation: Expectation::Works,
    },
    Kernel {
        name: "newest",
        architecture: Architecture::X86_64,
        suites: &["trixie-backports", "sid"],
        // Since 7.x, the storage of sockets is allocated by `kmalloc_nolock`, which always fails on a
        // processor without cmpxchg16b, such as the emulated one (`qemu.rs`), except from caches that
        // are debugged.
        parameters: "slab_debug=F,kmalloc-*",
        expectation: Expectation::Works,
    },
    Kernel {
        name: "6.1-aarch64",
        architecture: Architecture::Aarch64,
        suites: &["bookworm"],
        parameters: "",
        expectation: Expectation::Works,
    },
    Kernel {
        name: "6.12-aarch64",
        architecture: Architecture::Aarch64,
        suites: &["bookworm-backports"],
        parameters: "",
        expectation: Expectation::Works,
    },
    Kernel {
        name: "5.10",
        architecture: Architecture::X86_64,
        suites: &["bullseye"],
        parameters: "",
        expectation: Expectation::Lacks("netns cookie"),
    },
];

/// Parses the name of a kernel.
fn parse_kernel(name: &str) -> Result<&'static Kernel, String> {
    let names = || KERNELS.map(|kernel| kernel.name).join(", ");
    KERNELS
        .iter()
        .find(|kernel| kernel.name == name)
        .ok_or_else(|| format!("expected one of the kernels {}", names()))
}

/// What the guests of an architecture run.
struct Software {
    programs: Programs,
    userland: Userland,
}

impl Software {
    fn build(architecture: Architecture, with_tests: bool) -> Result<Self> {
        Ok(if architecture == THIS_MACHINES {
            Self {
                programs: Programs::of_this_machine()?,
                userland: Userland::ThisMachines,
            }
        } else {
            Self {
                programs: Programs::of_another(architecture, with_tests)?,
                userland: Userland::of_another(architecture)?,
            }
        })
    }
}

/// Runs the tests, or a command, on the chosen kernels.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        Architecture::of_this_machine()? == THIS_MACHINES,
        "the emulators and programs are those of an x86-64 machine: run this on one"
    );
    let kernels = options.kernels();
    prepare(&kernels)?;
    let choice = options.choice();
    let with_tests = options.command.is_empty() && !matches!(choice, Choice::None);
    // This machine's programs list the tests.
    let mut architectures = BTreeSet::from([THIS_MACHINES]);
    architectures.extend(kernels.iter().map(|kernel| kernel.architecture));
    let software = architectures
        .into_iter()
        .map(|architecture| Ok((architecture, Software::build(architecture, with_tests)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    if !options.command.is_empty() {
        let command = options.command.join(" ");
        return kernels
            .into_iter()
            .try_for_each(|kernel| kernel.run(&software[&kernel.architecture], &command));
    }
    let suite = Suite::choose(&choice, &software[&THIS_MACHINES].programs)?;
    let results = on_all_processors(kernels, |kernel| {
        kernel.test(&software[&kernel.architecture], &suite)
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

fn prepare(kernels: &[&Kernel]) -> Result<()> {
    test::prepare()?;
    let emulators = kernels.iter().map(|kernel| {
        let package = match kernel.architecture {
            Architecture::X86_64 => "qemu-system-x86",
            Architecture::Aarch64 => "qemu-system-arm",
        };
        Need::new(qemu::program(kernel.architecture), package)
    });
    let mut needs: Vec<_> = emulators.collect();
    needs.extend([
        Need::new("/bin/busybox", "busybox-static"),
        Need::new("cpio", "cpio"),
        Need::new("modprobe", "kmod"),
        Need::new("readelf", "binutils"),
    ]);
    apt::ensure(&needs)
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
    fn test(&self, software: &Software, suite: &Suite) -> Result<Outcome> {
        match self.expectation {
            Expectation::Works => self.test_works(software, suite),
            Expectation::Lacks(what) => self.test_lacks(software, what),
        }
    }

    fn test_works(&self, software: &Software, suite: &Suite) -> Result<Outcome> {
        let Programs {
            interceptor, smoke, ..
        } = &software.programs;
        let own = vec![interceptor.clone(), smoke.clone()];
        let command = format!("interceptor check && {}", programs::SMOKE);
        let mut guest = Guest::new(&software.userland, own, command);
        guest.time_limit = suite.time_limit;
        if !suite.tests.is_empty() {
            guest.command = format!("{} && {}", guest.command, suite::SCRIPT);
            suite.equip(&mut guest, &software.programs)?;
        }
        self.boot(&guest)
    }

    fn test_lacks(&self, software: &Software, what: &str) -> Result<Outcome> {
        let outcome = self.interceptor(software, "interceptor check")?;
        ensure!(
            outcome.exit_code != 0 && outcome.output.contains(what),
            "`interceptor check` does not report that {what} is missing",
        );
        Ok(outcome)
    }

    /// Runs one command, with the interceptor binary in `/bin`.
    fn run(&self, software: &Software, command: &str) -> Result<()> {
        let exit_code = self.interceptor(software, command)?.exit_code;
        ensure!(
            exit_code == 0,
            "kernel {}: exit code {exit_code}",
            self.name
        );
        Ok(())
    }

    fn interceptor(&self, software: &Software, command: &str) -> Result<Outcome> {
        let own = vec![software.programs.interceptor.clone()];
        self.boot(&Guest::new(&software.userland, own, command.to_owned()))
    }

    fn boot(&self, guest: &Guest<'_>) -> Result<Outcome> {
        let dir = paths::target().join("vm").join(self.name);
        let kernel = kernel::fetch(self.suites, self.architecture, &dir)?;
        let initramfs = dir.join("initramfs.cpio");
        initramfs::write(&initramfs, guest, &kernel)?;
        qemu::run(&Machine {
            name: self.name,
            architecture: self.architecture,
            kernel: &kernel.image(),
            initramfs: &initramfs,
            parameters: self.parameters,
            time_limit: guest.time_limit,
        })
    }
}
