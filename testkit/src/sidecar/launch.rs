//! Starting programs in a namespace and a cgroup, as a user.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{actor::User, netns::Netns, spawn::spawn};

/// Joins the cgroup and the namespace, changes the user and executes the program. The program is
/// opened first: the user may not be permitted to read its directory.
const SCRIPT: &str = r#"
echo $$ > "$1/cgroup.procs" || exit
exec 9< "$2" || exit
netns=$3 uid=$4 gid=$5
shift 5
exec nsenter --net="$netns" \
    setpriv --reuid="$uid" --regid="$gid" --clear-groups --pdeathsig=KILL /proc/self/fd/9 "$@"
"#;

/// Time limit of a program's start, until it listens.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(20);

/// `TCP_LISTEN`, as `/proc/net/tcp` writes it.
const LISTEN: &str = "0A";

/// A running program. Killed when dropped.
pub struct Process {
    child: Child,
}

/// The namespace, cgroup and user of a program.
#[derive(Clone, Copy)]
pub struct LaunchContext<'a> {
    /// The network namespace that it runs in.
    pub netns: &'a Netns,
    /// The cgroup that it runs in.
    pub cgroup: &'a Path,
    /// The user that it runs as.
    pub user: User,
}

impl LaunchContext<'_> {
    /// A command that executes `program` in this context.
    pub fn command(&self, program: &Path, arguments: &[String]) -> Result<Command> {
        ensure!(
            program.is_file(),
            "{}: there is no such program",
            program.display()
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .args([self.cgroup, program, self.netns.path()])
            .args([self.user.uid, self.user.gid].map(|id| id.to_string()))
            .args(arguments);
        Ok(command)
    }
}

impl Process {
    /// Starts `program`.
    pub fn start(context: LaunchContext<'_>, program: &Path, arguments: &[String]) -> Result<Self> {
        let mut command = context.command(program, arguments)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = spawn(command).with_context(|| program.display().to_string())?;
        Ok(Self { child })
    }

    /// Waits until the process has this many listeners in `netns` on each of `ports`.
    pub fn await_listeners(&mut self, netns: &Netns, ports: &[u16], count: usize) -> Result<()> {
        let deadline = Instant::now() + LISTEN_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the program that should listen on {ports:?} has exited: {status}");
            }
            let listening = netns.enter(listening_ports)?;
            let number = |port| listening.iter().filter(|other| *other == port).count();
            if ports.iter().all(|port| number(port) >= count) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{ports:?}: no {count} listeners after {LISTEN_TIMEOUT:?}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The ports of all listening sockets in the thread's network namespace, one entry per socket.
fn listening_ports() -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/thread-self/net/{table}");
        let table = fs::read_to_string(&path).context(path)?;
        ports.extend(table.lines().filter_map(listening_port));
    }
    Ok(ports)
}

/// `   0: 00000000:3A99 00000000:0000 0A ...`
fn listening_port(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace().skip(1);
    let (local, _, state) = (words.next()?, words.next()?, words.next()?);
    let (_, port) = local.rsplit_once(':')?;
    (state == LISTEN)
        .then(|| u16::from_str_radix(port, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_in_the_kernels_table() {
        let line = |state| format!("   0: 00000000:3A99 00000000:0000 {state} 00000000:00000000");
        assert_eq!(listening_port(&line("0A")), Some(15001));
        assert_eq!(listening_port(&line("01")), None);
        assert_eq!(listening_port("  sl  local_address rem_address   st"), None);
    }
}
