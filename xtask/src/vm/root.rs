//! The guest's root directory, before it is packed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::command::{exec, read};

/// The modules that a guest may need, below `kernel/`: those of networks, and what they depend on.
const MODULES: [&str; 5] = ["net", "drivers/net", "lib", "crypto", "arch"];

/// A directory with the guest's files. Removed when dropped.
pub(super) struct Root {
    dir: PathBuf,
}

impl Root {
    /// An empty one.
    pub(super) fn new(dir: PathBuf) -> Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// Copies a file of the host.
    pub(super) fn file(&self, file: &Path, path: &str) -> Result<()> {
        let copy = self.parent_of(path)?;
        fs::copy(file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(())
    }

    /// Copies everything in a directory to the root.
    pub(super) fn tree(&self, dir: &Path) -> Result<()> {
        exec(
            Command::new("cp")
                .arg("--archive")
                .arg(dir.join("."))
                .arg(&self.dir),
        )
    }

    /// Copies the files of a directory to the same path.
    pub(super) fn directory(&self, dir: &Path) -> Result<()> {
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            self.file(&path, &path.to_string_lossy())?;
        }
        Ok(())
    }

    /// Copies a program of the host, with its shared libraries.
    pub(super) fn program(&self, program: &Path, path: &str) -> Result<()> {
        self.file(program, path)?;
        for library in libraries(program)? {
            self.file(&library, &library.to_string_lossy())?;
        }
        Ok(())
    }

    /// Removes the symbols of a program, by this program of binutils.
    pub(super) fn strip(&self, path: &str, strip: &str) -> Result<()> {
        exec(Command::new(strip).arg(self.inside(path)))
    }

    /// Writes an executable script.
    pub(super) fn script(&self, path: &str, text: &str) -> Result<()> {
        let path = self.parent_of(path)?;
        fs::write(&path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Into::into)
    }

    /// Copies the modules of the kernel `release`, so that `modprobe` finds them.
    pub(super) fn modules(&self, modules: &Path, release: &str) -> Result<()> {
        let copy = self.inside(&format!("/lib/modules/{release}"));
        for part in MODULES {
            let part = Path::new("kernel").join(part);
            let parent = copy.join(part.parent().unwrap_or(&part));
            fs::create_dir_all(&parent)?;
            exec(
                Command::new("cp")
                    .arg("--recursive")
                    .arg(modules.join(&part))
                    .arg(parent),
            )?;
        }
        for list in [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ] {
            fs::copy(modules.join(list), copy.join(list))?;
        }
        exec(
            Command::new("/sbin/depmod")
                .arg("-b")
                .arg(&self.dir)
                .arg(release),
        )
    }

    /// Packs everything into an archive for the kernel.
    pub(super) fn pack(&self, archive: &Path) -> Result<()> {
        const PACK: &str = "find . | cpio --quiet --create --format=newc --owner=0:0 > \"$0\"";
        exec(
            Command::new("sh")
                .current_dir(&self.dir)
                .args(["-c", PACK])
                .arg(archive),
        )
    }

    fn parent_of(&self, path: &str) -> Result<PathBuf> {
        let inside = self.inside(path);
        if let Some(dir) = inside.parent() {
            fs::create_dir_all(dir)?;
        }
        Ok(inside)
    }

    /// An absolute path, with this root.
    fn inside(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // The next run removes it, if this fails.
        let _removed = fs::remove_dir_all(&self.dir);
    }
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
