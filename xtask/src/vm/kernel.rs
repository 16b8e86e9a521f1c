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
/// The prefix of the package of one version.
const IMAGE_PACKAGE: &str = "linux-image-";
/// Signs all of Debian's suites.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel's packages, unpacked.
pub(super) struct Kernel {
    root: PathBuf,
    release: String,
}

impl Kernel {
    /// Its version, as `uname -r` prints it.
    pub(super) fn release(&self) -> &str {
        &self.release
    }

    /// The image to boot. Where packages are split, it is beside the modules.
    pub(super) fn image(&self) -> Result<PathBuf> {
        let in_boot = self
            .root
            .join("boot")
            .join(format!("vmlinuz-{}", self.release));
        if in_boot.exists() {
            return Ok(in_boot);
        }
        Ok(self.modules()?.join("vmlinuz"))
    }

    /// The directory of its modules.
    pub(super) fn modules(&self) -> Result<PathBuf> {
        Ok(modules(&self.root)?.join(&self.release))
    }
}

/// The directory of all modules. Debian 13 has moved it.
fn modules(root: &Path) -> Result<PathBuf> {
    let places = ["lib/modules", "usr/lib/modules"];
    places
        .map(|place| root.join(place))
        .into_iter()
        .find(|directory| directory.exists())
        .with_context(|| format!("no kernel modules in {}", root.display()))
}

/// The newest default kernel of these Debian suites; downloaded once.
pub(super) fn fetch(suites: &[&str], dir: &Path) -> Result<Kernel> {
    let root = dir.join("root");
    if !root.exists() {
        download(suites, dir, &root)?;
    }
    let release = fs::read_dir(modules(&root)?)?
        .next()
        .with_context(|| format!("no kernel in {}", root.display()))??
        .file_name()
        .to_string_lossy()
        .into_owned();
    Ok(Kernel { root, release })
}

fn download(suites: &[&str], dir: &Path, root: &Path) -> Result<()> {
    let apt = Apt::new(suites, dir.join("apt"))?;
    exec(apt.command("apt-get").args(["--quiet=2", "update"]))?;
    let packages = apt.packages()?;
    say(&format!("downloading {}", packages.join(" ")));
    exec(
        apt.command("apt-get")
            .args(["--quiet=2", "download"])
            .args(&packages),
    )?;

    // Renamed only when complete, so that the name proves completeness.
    let part = dir.join("root.part");
    for package in apt.downloaded()? {
        exec(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(package)
                .arg(&part),
        )?;
    }
    fs::rename(&part, root)?;
    fs::remove_dir_all(&apt.dir).map_err(Into::into)
}

/// An apt configuration with some suites only, separate from the machine's.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(suites: &[&str], dir: PathBuf) -> Result<Self> {
        for subdirectory in ["cache/archives/partial", "state/lists/partial", "download"] {
            fs::create_dir_all(dir.join(subdirectory))?;
        }
        let mirror = mirror()?;
        let source = |suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        let sources: Vec<_> = suites.iter().map(source).collect();
        fs::write(dir.join("sources.list"), sources.concat())?;
        // apt would prefer an older version to one of backports.
        let equal = "Package: *\nPin: release o=Debian*\nPin-Priority: 500\n";
        fs::write(dir.join("preferences"), equal)?;
        Ok(Self { dir })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.join("download"));
        for (option, file) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::Preferences", "preferences"),
            ("Dir::Cache", "cache"),
            ("Dir::State", "state"),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", self.dir.join(file).display()));
        }
        for option in [
            "Dir::Etc::SourceParts=/dev/null",
            "Dir::Etc::PreferencesParts=/dev/null",
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

    /// The packages with the kernel and its modules. The image's package depends on the others, if there
    /// are any.
    fn packages(&self) -> Result<Vec<String>> {
        let mut packages = self.dependencies(META_PACKAGE)?;
        packages.retain(|package| package.starts_with(IMAGE_PACKAGE));
        let image = packages.first().context("no package with the image")?;
        let release = image.trim_start_matches(IMAGE_PACKAGE);
        let mut others = self.dependencies(image)?;
        others.retain(|other| other.ends_with(release));
        packages.append(&mut others);
        Ok(packages)
    }

    /// The packages that one depends on.
    fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let record = read(
            self.command("apt-cache")
                .args(["show", "--no-all-versions", package]),
        )?;
        let depends = record
            .lines()
            .find_map(|line| line.strip_prefix("Depends: "))
            .with_context(|| format!("{package} depends on nothing"))?;
        let names = depends.split(", ").filter_map(|one| one.split(' ').next());
        Ok(names.map(str::to_owned).collect())
    }

    fn downloaded(&self) -> Result<Vec<PathBuf>> {
        let files = fs::read_dir(self.dir.join("download"))?;
        files.map(|file| Ok(file?.path())).collect()
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
