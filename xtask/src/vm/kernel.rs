//! Debian's kernels for virtual machines: small, and with the kernel's own BTF.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::command::{exec, read, say};

/// The metapackage of a suite's kernel.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// Signs all of Debian's suites.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel's package, unpacked.
pub(super) struct Kernel {
    root: PathBuf,
    release: String,
}

impl Kernel {
    /// The image to boot.
    pub(super) fn image(&self) -> PathBuf {
        self.root
            .join("boot")
            .join(format!("vmlinuz-{}", self.release))
    }

    /// The files of modules and of their dependencies, in the order of loading.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        exec(
            Command::new("/sbin/depmod")
                .arg("-b")
                .arg(&self.root)
                .arg(&self.release),
        )?;
        let mut modules = Vec::new();
        for name in names {
            for file in self.module(name)? {
                if !modules.contains(&file) {
                    modules.push(file);
                }
            }
        }
        Ok(modules)
    }

    fn module(&self, name: &str) -> Result<Vec<PathBuf>> {
        let mut modprobe = Command::new("/sbin/modprobe");
        // The machine's own configuration would add options.
        modprobe
            .args([
                "-C",
                "/dev/null",
                "-S",
                &self.release,
                "--show-depends",
                "-d",
            ])
            .arg(&self.root)
            .arg(name);
        // "insmod FILE" or "builtin NAME".
        let steps = read(&mut modprobe)?;
        let files = steps
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "));
        Ok(files.map(|file| PathBuf::from(file.trim())).collect())
    }
}

/// The kernel of one of Debian's suites; downloaded once.
pub(super) fn fetch(suite: &str, dir: &Path) -> Result<Kernel> {
    let root = dir.join("root");
    if !root.exists() {
        download(suite, dir, &root)?;
    }
    let release = fs::read_dir(root.join("lib/modules"))?
        .next()
        .with_context(|| format!("no kernel in {}", root.display()))??
        .file_name()
        .to_string_lossy()
        .into_owned();
    Ok(Kernel { root, release })
}

fn download(suite: &str, dir: &Path, root: &Path) -> Result<()> {
    let apt = Apt::new(suite, dir.join("apt"))?;
    exec(apt.command("apt-get").args(["--quiet=2", "update"]))?;
    let package = apt.dependency(META_PACKAGE)?;
    say(&format!("downloading {package}"));
    exec(
        apt.command("apt-get")
            .args(["--quiet=2", "download", &package]),
    )?;

    // Renamed only when complete, so that the name proves completeness.
    let part = dir.join("root.part");
    exec(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(apt.downloaded()?)
            .arg(&part),
    )?;
    fs::rename(&part, root)?;
    fs::remove_dir_all(&apt.dir).map_err(Into::into)
}

/// An apt configuration with a single suite, separate from the machine's.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(suite: &str, dir: PathBuf) -> Result<Self> {
        for subdirectory in ["cache/archives/partial", "state/lists/partial", "download"] {
            fs::create_dir_all(dir.join(subdirectory))?;
        }
        let source = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?);
        fs::write(dir.join("sources.list"), source)?;
        Ok(Self { dir })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.join("download"));
        for (option, file) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Cache", "cache"),
            ("Dir::State", "state"),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", self.dir.join(file).display()));
        }
        for option in [
            "Dir::Etc::SourceParts=/dev/null",
            "Dir::State::Status=/dev/null",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "Acquire::Languages=none",
            // The signatures of old suites expire.
            "Acquire::Check-Valid-Until=false",
            // apt's own user may have no access to the directory.
            "APT::Sandbox::User=root",
        ] {
            command.args(["-o", option]);
        }
        command
    }

    /// The first package that one depends on.
    fn dependency(&self, package: &str) -> Result<String> {
        let record = read(self.command("apt-cache").args(["show", package]))?;
        let depends = record
            .lines()
            .find_map(|line| line.strip_prefix("Depends: "));
        let first = depends.and_then(|depends| depends.split([' ', ',']).next());
        first
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on nothing"))
    }

    fn downloaded(&self) -> Result<PathBuf> {
        let mut files = fs::read_dir(self.dir.join("download"))?;
        Ok(files
            .next()
            .context("apt-get has downloaded no package")??
            .path())
    }
}

/// The Debian mirror of the machine, from either format of apt's sources.
fn mirror() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(dir) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(dir.flatten().map(|entry| entry.path()));
    }
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| debian_uri(&text).map(str::to_owned))
        .context("apt's sources have no Debian mirror from which to download kernels")
}

fn debian_uri(sources: &str) -> Option<&str> {
    sources
        .lines()
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
        .flat_map(str::split_whitespace)
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
}

#[cfg(test)]
mod tests {
    use super::debian_uri;

    #[test]
    fn mirror_is_found_in_both_formats() {
        let list = "# deb http://no/debian x\ndeb [signed-by=/k] https://m/debian/ bookworm main\n";
        assert_eq!(debian_uri(list), Some("https://m/debian/"));
        let deb822 = "Types: deb\nURIs: http://m/debian-security\n\nURIs: http://m/debian\n";
        assert_eq!(debian_uri(deb822), Some("http://m/debian"));
        assert_eq!(debian_uri("deb http://m/ubuntu noble main\n"), None);
    }
}
