//! Debian's packages of other suites and architectures than the machine's, unpacked without installing them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    architecture::Architecture,
    command::{exec, read, say},
};

/// Signs all of Debian's suites.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Packages, which are downloaded once.
pub(super) struct Packages<'a> {
    pub(super) suites: &'a [&'a str],
    pub(super) architecture: Architecture,
    /// The directory into which they are unpacked.
    pub(super) root: &'a Path,
}

impl Packages<'_> {
    /// Unpacks those that `choose` names, unless they are unpacked already.
    pub(super) fn ensure(&self, choose: impl FnOnce(&Apt) -> Result<Vec<String>>) -> Result<()> {
        if self.root.exists() {
            return Ok(());
        }
        let apt = Apt::new(self)?;
        let packages = choose(&apt)?;
        say(&format!(
            "downloading for {}: {}",
            self.architecture,
            packages.join(" ")
        ));
        exec(
            apt.command("apt-get")
                .args(["--quiet=2", "download"])
                .args(&packages),
        )?;
        // Renamed only when complete, so that the name proves completeness.
        let part = self.root.with_extension("part");
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        merge_usr(&part)?;
        for package in apt.downloaded()? {
            unpack(&package, &part)?;
        }
        fs::rename(&part, self.root)?;
        fs::remove_dir_all(&apt.dir).map_err(Into::into)
    }
}

/// Makes the links of a merged `/usr`, which older packages rely on.
fn merge_usr(root: &Path) -> Result<()> {
    for name in ["bin", "lib", "sbin"] {
        let in_usr = Path::new("usr").join(name);
        fs::create_dir_all(root.join(&in_usr))?;
        symlink(in_usr, root.join(name))?;
    }
    Ok(())
}

fn unpack(package: &Path, root: &Path) -> Result<()> {
    const UNPACK: &str = "dpkg-deb --fsys-tarfile \"$0\" | tar --extract --keep-directory-symlink";
    exec(
        Command::new("sh")
            .args(["-c", UNPACK])
            .arg(package)
            .current_dir(root),
    )
}

/// An apt configuration with some suites only, separate from the machine's.
pub(super) struct Apt {
    dir: PathBuf,
    architecture: Architecture,
}

impl Apt {
    fn new(packages: &Packages<'_>) -> Result<Self> {
        let dir = packages.root.with_extension("apt");
        for subdirectory in ["cache/archives/partial", "state/lists/partial", "download"] {
            fs::create_dir_all(dir.join(subdirectory))?;
        }
        // Without a list of installed packages, all dependencies are missing.
        fs::write(dir.join("status"), "")?;
        let mirror = mirror()?;
        let source = |suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        let sources: Vec<_> = packages.suites.iter().map(source).collect();
        fs::write(dir.join("sources.list"), sources.concat())?;
        // apt would prefer an older version to one of backports.
        let equal = "Package: *\nPin: release o=Debian*\nPin-Priority: 500\n";
        fs::write(dir.join("preferences"), equal)?;
        let apt = Self {
            dir,
            architecture: packages.architecture,
        };
        exec(apt.command("apt-get").args(["--quiet=2", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.join("download"));
        for (option, file) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::Preferences", "preferences"),
            ("Dir::Cache", "cache"),
            ("Dir::State", "state"),
            ("Dir::State::Status", "status"),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", self.dir.join(file).display()));
        }
        for option in [
            "Dir::Etc::SourceParts=/dev/null",
            "Dir::Etc::PreferencesParts=/dev/null",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "Acquire::Languages=none",
            // The signatures of old suites expire.
            "Acquire::Check-Valid-Until=false",
            // apt's own user may have no access to the directory.
            "APT::Sandbox::User=root",
        ] {
            command.args(["-o", option]);
        }
        let architecture = self.architecture.oci_name();
        for option in ["APT::Architecture", "APT::Architectures"] {
            command.args(["-o", &format!("{option}={architecture}")]);
        }
        command
    }

    /// These packages and all that they require.
    pub(super) fn with_dependencies(&self, packages: &[&str]) -> Result<Vec<String>> {
        let plan = read(
            self.command("apt-get")
                .args(["--simulate", "--no-install-recommends", "install"])
                .args(packages),
        )?;
        // "Inst NAME (VERSION …)"
        let names = plan
            .lines()
            .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
        Ok(names.map(str::to_owned).collect())
    }

    /// The packages that one depends on.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
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
        .context("apt's sources have no Debian mirror from which to download packages")
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
