//! `cargo xtask test-vm`: the binary on other kernels, emulated.

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

/// What is to happen on a kernel.
enum Expectation {
    /// `interceptor check` finds nothing missing, and the smoke test passes.
    Works,
    /// `interceptor check` fails, and its output has these words.
    Lacks(&'static str),
}

/// A kernel to test on.
pub(crate) struct Kernel {
    /// The version's beginning.
    name: &'static str,
    /// Debian's suite that has it as its default kernel.
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

/// Modules that the smoke test needs and the kernels do not have built in. (The last two are loaded
/// by the kernel itself where there is a `modprobe`.)
const MODULES: [&str; 4] = ["dummy", "veth", "sch_ingress", "cls_bpf"];

/// What the smoke test's binary is called, on the host and in the guest.
const SMOKE: &str = "vm-smoke";

/// The kernel that the command line names.
pub(crate) fn parse_kernel(name: &str) -> Result<&'static Kernel, String> {
    let names = || KERNELS.map(|kernel| kernel.name).join(", ");
    KERNELS
        .iter()
        .find(|kernel| kernel.name == name)
        .ok_or_else(|| format!("the kernels to choose from are {}", names()))
}

/// Tests on those kernels, or on all. A command, if there is one, is run in place of the test.
pub(crate) fn run(kernels: Vec<&'static Kernel>, command: &[String]) -> Result<()> {
    ensure!(
        env::consts::ARCH == "x86_64",
        "the kernels to test on are x86-64's"
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
        exec(cargo("build").args([
            "--release",
            "--package",
            "interceptor-tests",
            "--bin",
            SMOKE,
        ]))?;
        let smoke = paths::cargo_target().join("release").join(SMOKE);
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
                "kernel {}: `interceptor check` does not say that it lacks {what}",
                self.name
            );
        }
        say(&format!(
            "kernel {}: refused with the expected reason",
            self.name
        ));
        Ok(())
    }

    /// For people: runs one command, with the interceptor at hand.
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
