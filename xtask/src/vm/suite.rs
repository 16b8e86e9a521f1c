//! The kernel test suite in a guest: which of its tests run there, and with what.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{initramfs::Guest, programs::Programs};

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
    /// Selects the tests to run. The programs are this machine's; those for others have the same tests.
    pub(super) fn choose(choice: &Choice, programs: &Programs) -> Result<Self> {
        let mut tests = programs.list_tests()?;
        let unfit = UNFIT
            .iter()
            .map(|unfit| Ok((unfit, remove(&mut tests, unfit.tests)?)))
            .collect::<Result<_>>()?;
        let fitting = tests.len();
        choice.select(&mut tests)?;
        Ok(Self {
            time_limit: choice.time_limit(),
            not_chosen: fitting - tests.len(),
            tests,
            unfit,
        })
    }

    /// Adds what the tests need to a guest.
    pub(super) fn equip(&self, guest: &mut Guest<'_>, programs: &Programs) -> Result<()> {
        let tests = programs.tests()?;
        guest
            .own
            .extend(OWN.map(|name| programs.beside_the_smoke_test(name)));
        guest.own.push(tests.to_owned());
        guest.script = Some((SCRIPT, self.script(tests)?));
        Ok(())
    }

    /// One pod stays captured, so that the kernel verifies the programs once, not for each test.
    fn script(&self, tests: &Path) -> Result<String> {
        let binary = tests.file_name().context("the tests have no name")?;
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
