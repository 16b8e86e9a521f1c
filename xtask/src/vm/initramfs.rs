//! The guest's only file system: busybox, the programs with their libraries, and an init.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::command::{exec, read};

/// Precedes the exit code in the output.
pub(super) const RESULT: &str = "VM-RESULT ";

/// What to run in a virtual machine.
pub(super) struct Guest<'a> {
    /// Programs of the host, which are copied to /bin.
    pub(super) programs: Vec<&'a Path>,
    /// A shell command; its exit code is the result.
    pub(super) command: String,
}

/// Writes an initramfs that loads the modules, runs the guest's command and powers off.
pub(super) fn write(archive: &Path, guest: &Guest<'_>, modules: &[PathBuf]) -> Result<()> {
    let root = archive.with_extension("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    add(&root, Path::new("/bin/busybox"), Path::new("/bin/busybox"))?;
    for program in &guest.programs {
        add_program(&root, program)?;
    }
    let loads = add_modules(&root, modules)?;
    add_script(&root.join("init"), &init(&loads, &guest.command))?;
    pack(&root, archive)?;
    fs::remove_dir_all(&root).map_err(Into::into)
}

fn add_program(root: &Path, program: &Path) -> Result<()> {
    let name = program.file_name().context("a program has no name")?;
    add(root, program, &Path::new("/bin").join(name))?;
    for library in libraries(program)? {
        add(root, &library, &library)?;
    }
    Ok(())
}

/// The shared libraries of a program, and its dynamic linker.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // "NAME => PATH (ADDRESS)" or "PATH (ADDRESS)".
    let listing = read(Command::new("ldd").arg(program))?;
    let words = listing
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}

/// Copies modules, uncompressed; returns the commands that load them.
fn add_modules(root: &Path, modules: &[PathBuf]) -> Result<String> {
    modules
        .iter()
        .map(|module| add_module(root, module))
        .collect()
}

fn add_module(root: &Path, module: &Path) -> Result<String> {
    let name = module.file_name().context("a module has no name")?;
    let path = Path::new("/modules").join(name);
    add(root, module, &path)?;
    let copy = inside(root, &path);
    if copy.extension().is_some_and(|extension| extension == "xz") {
        exec(Command::new("xz").arg("--decompress").arg(&copy))?;
    }
    Ok(format!(
        "insmod {}\n",
        path.to_string_lossy().trim_end_matches(".xz")
    ))
}

fn init(loads: &str, command: &str) -> String {
    format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /dev /proc /run /sys /tmp
mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
ip link set lo up
{loads}
uname -a
( {command} )
echo \"{RESULT}$?\"
poweroff -f
"
    )
}

fn add_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Into::into)
}

fn add(root: &Path, file: &Path, path: &Path) -> Result<()> {
    let copy = inside(root, path);
    if let Some(dir) = copy.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::copy(file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

/// An absolute path, with another root.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn pack(root: &Path, archive: &Path) -> Result<()> {
    const PACK: &str = "find . | cpio --quiet --create --format=newc --owner=0:0 > \"$0\"";
    exec(
        Command::new("sh")
            .current_dir(root)
            .args(["-c", PACK])
            .arg(archive),
    )
}
