//! `cargo xtask test`: all tests, including those on the machine's own kernel.

use anyhow::{Result, ensure};

use crate::{
    apt::{self, Need},
    build,
    command::{cargo, display, exec, say},
    envoy, helm, kubectl,
};

/// Prepares the machine and runs `cargo test` with these arguments.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    ensure!(
        apt::is_root()?,
        "the kernel tests load BPF programs: run this as root"
    );
    prepare()?;
    let envoy = envoy::ensure()?;
    let kubectl = kubectl::ensure()?;
    let helm = helm::ensure()?;
    let other_layout = build::other_layout()?;
    let interceptor = build::tested()?;
    let mut test = cargo("test");
    // One failure must not hide the next.
    test.args(build::PACKAGES)
        .arg("--no-fail-fast")
        .args(arguments);
    exec(
        test.env("ENVOY_BIN", &envoy)
            .env("HELM_SDK_DIR", &helm)
            .env("INTERCEPTOR_BIN", &interceptor)
            .env("KUBECTL_BIN", &kubectl)
            .env("INTERCEPTOR_OTHER_BIN", &other_layout),
    )?;
    say(&format!("passed: `{}`", display(&test)));
    say(&format!(
        "with {} and {}",
        interceptor.display(),
        envoy.display()
    ));
    Ok(())
}

/// Installs the programs that the tests call.
pub(crate) fn prepare() -> Result<()> {
    prepare_pods()?;
    apt::ensure(&[
        Need::new("/bin/busybox", "busybox-static"),
        Need::new("bpftool", "bpftool"),
        Need::new("chromium", "chromium"),
        // Chromium shows no text without a font.
        Need::new(
            "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
            "fonts-dejavu-core",
        ),
        Need::new("containerd", "containerd"),
        Need::new("musl-gcc", "musl-tools"),
        Need::new("nft", "nftables"),
        Need::new("pasta", "passt"),
        Need::new("promtool", "prometheus"),
        Need::new("runc", "runc"),
        Need::new("sysctl", "procps"),
    ])
}

/// Installs the programs that make pods and their iptables rules, which are all that the demo calls.
pub(crate) fn prepare_pods() -> Result<()> {
    apt::ensure(&[
        Need::new("/usr/lib/cni/bridge", "containernetworking-plugins"),
        Need::new("ip", "iproute2"),
        Need::new("iptables", "iptables"),
        Need::new("nsenter", "util-linux"),
    ])
}
