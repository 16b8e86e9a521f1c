//! What a process has used, from its files in `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

/// The largest size of its memory so far, in bytes.
pub(super) fn peak_memory(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let size = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let size: u32 = size.context("no VmHWM in its status")?.parse()?;
    Ok(f64::from(size) * 1024.0)
}

/// The processor time of all its threads so far, with a resolution of some milliseconds.
pub(super) fn processor_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may contain anything, also parentheses.
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    // proc_pid_stat(5): utime and stime, the 14th and 15th field.
    let ticks =
        |index: usize| -> Result<u32> { Ok(fields.get(index).context("too few fields")?.parse()?) };
    let ticks = ticks(11)? + ticks(12)?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
    Ok(Duration::from_secs(ticks.into()) / u32::try_from(per_second)?)
}
