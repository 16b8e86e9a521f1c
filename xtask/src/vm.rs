//! `cargo xtask test-vm`: tests the binary on other kernels, in virtual machines.

use std::{env, path::Path};

use anyhow::{Result, bail, ensure};

use crate::{
    apt::{self, Need},
    build,
    command::{cargo, exec, say},
    paths,
};

mod initramfs;
mod kernel;
mod qemu;

use initramfs::Guest;

/// The expected result on a kernel.
enum Expectation {
    /// `interceptor check` finds nothing missing, and the smoke test passes.
    Works,
    /// `interceptor check` fails, and its output has these words.
    Lacks(&'static str),
}

/// A kernel to test on.
pub(crate) struct Kernel {
    /// The prefix of the version.
    name: &'static str,
    /// The Debian suite with this default kernel.
    suite: &'static str,
    expectation: Expectation,
}

const KERNELS: [Kernel; 3] = [
    Kernel {
        name: "6.1",
        suite: "bookworm",
        expectation: Expectation::Works,
    },
    Kernel {
        name: "6.12",
        suite: "bookworm-backports",
        expectation: Expectation::Works,
    },
    Kernel {
        name: "5.10",
        suite: "bullseye",
        expectation: Expectation::Lacks("netns cookie"),
    },
];

/// Modules that the smoke test requires and that are not built into the kernels. (With `modprobe`, the
/// kernel itself would load the last two.)
const MODULES: [&str; 4] = ["dummy", "veth", "sch_ingress", "cls_bpf"];

/// The name of the smoke test's binary, on the host and in the guest.
const SMOKE: &str = "vm-smoke";

/// Parses the name of a kernel.
pub(crate) fn parse_kernel(name: &str) -> Result<&'static Kernel, String> {
    let names = || KERNELS.map(|kernel| kernel.name).join(", ");
    KERNELS
        .iter()
        .find(|kernel| kernel.name == name)
        .ok_or_else(|| format!("expected one of the kernels {}", names()))
}

/// Tests on these kernels, or on all. Runs `command` instead of the test, if there is one.
pub(crate) fn run(kernels: Vec<&'static Kernel>, command: &[String]) -> Result<()> {
    ensure!(
        env::consts::ARCH == "x86_64",
        "the kernels are built for x86-64: run this on an x86-64 machine"
    );
    prepare()?;
    let interceptor = build::run()?;
    let kernels = if kernels.is_empty() {
        KERNELS.iter().collect()
    } else {
        kernels
    };
    for kernel in kernels {
        if command.is_empty() {
            kernel.test(&interceptor)?;
        } else {
            kernel.run(&interceptor, command)?;
        }
    }
    Ok(())
}

fn prepare() -> Result<()> {
    apt::ensure(&[
        Need::new("/bin/busybox", "busybox-static"),
        Need::new("cpio", "cpio"),
        Need::new("modprobe", "kmod"),
        Need::new("qemu-system-x86_64", "qemu-system-x86"),
        Need::new("xz", "xz-utils"),
    ])
}

impl Kernel {
    fn test(&self, interceptor: &Path) -> Result<()> {
        match self.expectation {
            Expectation::Works => self.test_works(interceptor),
            Expectation::Lacks(what) => self.test_lacks(interceptor, what),
        }
    }

    fn test_works(&self, interceptor: &Path) -> Result<()> {
        exec(cargo("build").args(["--package", "interceptor-tests", "--bin", SMOKE]))?;
        let smoke = paths::cargo_target().join("debug").join(SMOKE);
        let outcome = self.boot(&Guest {
            programs: vec![interceptor, &smoke],
            command: format!("/bin/interceptor check && /bin/{SMOKE}"),
        })?;
        if outcome.exit_code != 0 {
            bail!("kernel {}: exit code {}", self.name, outcome.exit_code);
        }
        say(&format!("kernel {}: works", self.name));
        Ok(())
    }

    fn test_lacks(&self, interceptor: &Path, what: &str) -> Result<()> {
        let command = "/bin/interceptor check".to_owned();
        let outcome = self.boot(&Guest {
            programs: vec![interceptor],
            command,
        })?;
        if outcome.exit_code == 0 || !outcome.output.contains(what) {
            bail!(
                "kernel {}: `interceptor check` does not report that {what} is missing",
                self.name
            );
        }
        say(&format!(
            "kernel {}: refused with the expected reason",
            self.name
        ));
        Ok(())
    }

    /// Runs one command, with the interceptor binary in `/bin`.
    fn run(&self, interceptor: &Path, command: &[String]) -> Result<()> {
        let guest = Guest {
            programs: vec![interceptor],
            command: command.join(" "),
        };
        let exit_code = self.boot(&guest)?.exit_code;
        ensure!(
            exit_code == 0,
            "kernel {}: exit code {exit_code}",
            self.name
        );
        Ok(())
    }

    fn boot(&self, guest: &Guest<'_>) -> Result<qemu::Outcome> {
        let dir = paths::target().join("vm").join(self.name);
        let kernel = kernel::fetch(self.suite, &dir)?;
        let initramfs = dir.join("initramfs.cpio");
        initramfs::write(&initramfs, guest, &kernel.modules(&MODULES)?)?;
        qemu::run(self.name, &kernel.image(), &initramfs)
    }
}
