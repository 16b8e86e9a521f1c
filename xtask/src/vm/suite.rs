//! The kernel test suite in a guest: which of its tests run there, and with what.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::initramfs::Guest;
use crate::{
    build,
    command::{cargo, read},
    paths,
};

/// Tests that do not fit into a guest, by the start of their names.
pub(super) struct Unfit {
    pub(super) tests: &'static str,
    pub(super) reason: &'static str,
}

/// What an initramfs does not contain, or an emulated processor cannot do in time.
const UNFIT: [Unfit; 3] = [
    Unfit {
        tests: "envoy::",
        reason: "Envoy does not fit into an initramfs",
    },
    Unfit {
        tests: "isolation::hostile_pods::hostile_pods_",
        reason: "hostile pods load the machine, for much longer on an emulated processor",
    },
    Unfit {
        tests: "dns::resolvers::",
        reason: "the resolvers of glibc and musl are compiled by the tests, and a guest has no compiler",
    },
];

/// The selection, by the start of the tests' names: those whose subject differs most between kernels, because
/// it is in hooks, tc programs, routes or sockets. The others fit too, but an emulated processor is twenty
/// times as slow, so all of them together take hours per kernel: `--all` runs them.
const QUICK: [&str; 6] = [
    // Hooks and sk_lookup, socket options. (The rest of `isolation::` takes minutes.)
    "isolation::source_routes::",
    // Routes and listeners of a proxy with the clients' addresses.
    "lifecycle::tproxy::",
    // The storage of sockets.
    "dns::attaching::",
    // Programs at interfaces: tcx since 6.6, clsact before.
    "differential::forwarded::forwarded_is_",
    // Every role and family, compared with iptables.
    "differential::settings::other_ports",
    "differential::original_destination::of_an_accepted_socket",
];

/// The machine's programs that the tests call.
const PROGRAMS: [&str; 20] = [
    "ip",
    "ip6tables",
    "ip6tables-legacy-restore",
    "ip6tables-nft-restore",
    "ip6tables-restore",
    "iptables",
    "iptables-legacy-restore",
    "iptables-nft",
    "iptables-nft-restore",
    "iptables-restore",
    "iptables-save",
    "mount",
    "nft",
    "nsenter",
    "setpriv",
    "sh",
    "sysctl",
    "tc",
    "timeout",
    "unshare",
];

/// The programs that the tests start, beside the product's.
const OWN: [&str; 5] = [
    "interceptor-test-actor",
    "interceptor-test-dialler",
    "interceptor-test-sidecar",
    "interceptor-test-sweep",
    "interceptor-test-victim",
];

/// The path of the script that runs the tests.
pub(super) const SCRIPT: &str = "/bin/kernel-tests";

/// Which tests to run.
#[derive(Clone, Debug)]
pub(super) enum Choice {
    /// None: only the smoke test.
    None,
    /// A selection.
    Quick,
    /// All that fit into a guest.
    All,
    /// Those of all whose names contain one of these texts.
    Matching(Vec<String>),
}

/// The tests for a guest.
pub(super) struct Suite {
    binary: PathBuf,
    /// Those to run.
    pub(super) tests: Vec<String>,
    /// For all of them.
    pub(super) time_limit: Duration,
    /// The number of tests that fit, but were not chosen.
    pub(super) not_chosen: usize,
    /// The numbers of tests that do not fit, and why.
    pub(super) unfit: Vec<(&'static Unfit, usize)>,
}

impl Suite {
    /// Builds the tests, and selects those to run.
    pub(super) fn build(choice: &Choice) -> Result<Self> {
        let binary = binary()?;
        let mut tests = list(&binary)?;
        let unfit = UNFIT
            .iter()
            .map(|unfit| Ok((unfit, remove(&mut tests, unfit.tests)?)))
            .collect::<Result<_>>()?;
        let fitting = tests.len();
        choice.select(&mut tests)?;
        Ok(Self {
            binary,
            time_limit: choice.time_limit(),
            not_chosen: fitting - tests.len(),
            tests,
            unfit,
        })
    }

    /// Adds what the tests need to a guest.
    pub(super) fn equip(&self, guest: &mut Guest) -> Result<()> {
        guest.own.extend(OWN.map(build::built));
        guest.own.push(self.binary.clone());
        for name in PROGRAMS {
            guest
                .programs
                .push(paths::program(name).with_context(|| format!("no program {name}"))?);
        }
        guest
            .directories
            .push("/usr/lib/x86_64-linux-gnu/xtables".into());
        guest.script = Some((SCRIPT, self.script()?));
        Ok(())
    }

    /// One pod stays captured, so that the kernel verifies the programs once, not for each test.
    fn script(&self) -> Result<String> {
        let binary = self.binary.file_name().context("the tests have no name")?;
        Ok(format!(
            "#!/usr/bin/sh
export INTERCEPTOR_BIN=/bin/interceptor
ip netns add kept && ip -n kept link set lo up && ip -n kept link add eth0 type dummy || exit
ip -n kept address add 10.1.0.2/24 dev eth0 && ip -n kept link set eth0 up || exit
mkdir /sys/fs/cgroup/kept || exit
interceptor attach --netns /run/netns/kept --cgroup /sys/fs/cgroup/kept || exit
# Nothing loads this one on demand.
/sbin/modprobe br_netfilter || exit
exec /bin/{} --exact --test-threads 4 {}
",
            binary.to_string_lossy(),
            self.tests.join(" ")
        ))
    }
}

impl Choice {
    const fn time_limit(&self) -> Duration {
        match self {
            Self::None | Self::Quick => Duration::from_mins(40),
            Self::All | Self::Matching(_) => Duration::from_hours(4),
        }
    }

    fn select(&self, tests: &mut Vec<String>) -> Result<()> {
        match self {
            Self::All => {}
            Self::None => {
                tests.clear();
                return Ok(());
            }
            Self::Quick => {
                let all = tests.clone();
                for start in QUICK {
                    remove(tests, start)?;
                }
                let others = std::mem::replace(tests, all);
                tests.retain(|test| !others.contains(test));
            }
            Self::Matching(filters) => {
                tests.retain(|test| filters.iter().any(|filter| test.contains(filter)));
            }
        }
        ensure!(
            !tests.is_empty(),
            "no test that fits into a guest matches {self:?}"
        );
        Ok(())
    }
}

/// Builds the tests, and the programs that they start, as `cargo xtask test` does; returns the path of
/// their binary.
fn binary() -> Result<PathBuf> {
    let messages = read(cargo("test").args(build::PACKAGES).args([
        "--test",
        "kernel",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "kernel")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo has built no tests")
}

/// The names of all tests.
fn list(binary: &PathBuf) -> Result<Vec<String>> {
    let listing = read(Command::new(binary).args(["--list", "--format", "terse"]))?;
    let names = listing
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// Removes the tests whose names start so; returns their number.
fn remove(tests: &mut Vec<String>, start: &str) -> Result<usize> {
    let before = tests.len();
    tests.retain(|test| !test.starts_with(start));
    let removed = before - tests.len();
    ensure!(
        removed > 0,
        "no test's name starts with {start}: correct the lists in xtask/src/vm/suite.rs"
    );
    Ok(removed)
}
