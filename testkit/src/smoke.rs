//! The smoke test: one pod, captured and detached, on a machine that has only busybox and the
//! binary. It is for emulated machines, and attaches at the product's default: the root cgroup.
//!
//! ```text
//!  pod                              outside
//!  app, proxy, app's server         client, remote server
//!  veth0 10.1.0.2, fd00:1::2 ────── veth1 10.1.0.1, fd00:1::1
//!  veth1 10.5.0.1, fd00:5::1 ────── inside: veth2 10.5.0.2, fd00:5::2
//! ```

mod captured;
mod dns;
mod namespace;
mod product;
mod stage;
mod tcp;
mod verification;

use std::{fs, path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};
use stage::{Proxy, Stage};

/// Runs it.
pub fn run() -> Result<()> {
    ensure_expendable()?;
    leave_root_cgroup()?;
    let mut stage = step("a pod and the outside", Stage::new)?;

    // One listener exists before the attach, the other is created after it.
    stage.proxy.listen_outbound(&stage.pod)?;
    step("attach", || product::attach(&stage.pod))?;
    stage.proxy.listen_inbound(&stage.pod)?;
    step("captured", || captured::expect_captured(&stage))?;
    step("DNS captured", || dns::expect_captured(&stage.pod))?;
    step("attach in strict mode", || {
        product::attach_strictly(&stage.pod)
    })?;
    step("captured in strict mode", || {
        captured::expect_captured_strictly(&stage)
    })?;
    step("verified", verification::print_counts)?;
    step("attach again", || product::attach(&stage.pod))?;
    step("captured still", || captured::expect_captured(&stage))?;

    stage.proxy = Proxy::default();
    step("refused without a proxy", || {
        captured::expect_refused(&stage)
    })?;
    stage.proxy.listen_outbound(&stage.pod)?;
    stage.proxy.listen_inbound(&stage.pod)?;
    step("captured by the next proxy", || {
        captured::expect_captured(&stage)
    })?;

    step("other addresses", || stage.renumber())?;
    step("captured with other addresses", || {
        captured::expect_captured_renumbered(&stage)
    })?;
    step("the first addresses", || stage.number_as_before())?;

    step("attach with TPROXY", || {
        product::attach_transparently(&stage.pod)
    })?;
    step("captured with TPROXY", || captured::expect_captured(&stage))?;
    step("the app called in a client's name", || {
        captured::expect_calls_in_a_clients_name(&stage)
    })?;

    step("detach", || product::detach(&stage.pod))?;
    step("not captured", || captured::expect_not_captured(&stage))?;
    step("nothing left", product::expect_nothing_pinned)
}

/// Runs one step and prints its duration.
fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work().with_context(|| format!("not ok: {name}"))?;
    println!("ok: {name} ({:.1?})", start.elapsed());
    Ok(result)
}

/// A real machine has another init, and processes that an attach at the root would affect.
fn ensure_expendable() -> Result<()> {
    ensure!(
        fs::read_link("/proc/1/exe").is_ok_and(|init| init.ends_with("busybox")),
        "this is for emulated machines, not for yours: run `cargo xtask test-vm`"
    );
    Ok(())
}

/// Sockets are created in a cgroup below the root, as a pod's are.
fn leave_root_cgroup() -> Result<()> {
    let cgroup = Path::new("/sys/fs/cgroup/pod");
    fs::create_dir(cgroup).context("the pod's cgroup")?;
    fs::write(cgroup.join("cgroup.procs"), "0").context("the pod's cgroup")
}
