//! The guest's only file system: Debian's programs, the kernel's modules, the workspace's programs and an init.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{kernel::Kernel, root::Root, userland::Userland};

/// Precedes the exit code in the output.
pub(super) const RESULT: &str = "VM-RESULT ";

/// What to run in a virtual machine.
pub(super) struct Guest<'a> {
    /// Programs of Debian.
    pub(super) userland: &'a Userland,
    /// Programs that the workspace builds, which are copied to /bin.
    pub(super) own: Vec<PathBuf>,
    /// A shell script at this path, which runs the kernel tests.
    pub(super) script: Option<(&'static str, String)>,
    /// A shell command; its exit code is the result.
    pub(super) command: String,
    pub(super) time_limit: Duration,
}

impl<'a> Guest<'a> {
    /// A guest with these programs of the workspace.
    pub(super) const fn new(userland: &'a Userland, own: Vec<PathBuf>, command: String) -> Self {
        Self {
            userland,
            own,
            script: None,
            command,
            time_limit: Duration::from_mins(5),
        }
    }
}

/// Writes an initramfs that runs the guest's command and powers off.
pub(super) fn write(archive: &Path, guest: &Guest<'_>, kernel: &Kernel) -> Result<()> {
    let root = Root::new(archive.with_extension("root"))?;
    guest.userland.copy(&root, guest.script.is_some())?;
    root.modules(&kernel.modules(), kernel.release())?;
    for program in &guest.own {
        let path = format!("/bin/{}", name(program)?);
        guest.userland.copy_own(&root, program, &path)?;
    }
    if let Some((path, text)) = &guest.script {
        root.script(path, text)?;
    }
    root.script("/init", &init(&guest.command))?;
    root.pack(archive)
}

fn name(program: &Path) -> Result<String> {
    let name = program.file_name().context("a program has no name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// The file systems are those of a Debian machine. Of the users, only root has a name.
fn init(command: &str) -> String {
    format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/bin
mkdir -p /dev /etc /proc /run /sys /tmp
mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
echo root:x:0:0::/:/bin/sh >/etc/passwd
touch /etc/nsswitch.conf /etc/resolv.conf
ip link set lo up
uname -a
( {command} )
echo \"{RESULT}$?\"
poweroff -f
"
    )
}
