//! Which DNS is captured.

use std::{
    fs::File,
    io::{self, Read as _},
    net::IpAddr,
    path::PathBuf,
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};
use serde::{Deserialize, Serialize};

use super::{
    SettingError,
    flags::{CAPTURE_ALL_DNS, REDIRECT_DNS},
    source::Source,
};

/// More than the size of any resolv.conf. A pod controls the file, so its size is limited.
const MAX_SIZE: u64 = 1 << 20;

/// Which DNS over UDP and TCP is redirected to the proxy's port 15053.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsCapture {
    /// None.
    Off,
    /// That to these servers; there is at least one.
    Servers(Vec<IpAddr>),
    /// All.
    All,
}

/// The resolv.conf that lists the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvConf {
    /// A file.
    File(PathBuf),
    /// `/etc/resolv.conf` as a process sees it.
    OfProcess(u32),
}

impl ResolvConf {
    fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::OfProcess(pid) => format!("/proc/{pid}/root/etc/resolv.conf").into(),
        }
    }

    fn read(&self) -> io::Result<String> {
        let file = match self {
            Self::File(path) => File::open(path)?,
            Self::OfProcess(pid) => open_in_root_of(*pid)?,
        };
        let mut text = Vec::new();
        file.take(MAX_SIZE).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Follows the pod's symbolic links as the pod does: an absolute link must not lead to our own files,
/// and a pipe must not block.
fn open_in_root_of(pid: u32) -> io::Result<File> {
    let root = File::open(format!("/proc/{pid}/root"))?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    Ok(openat2(root, "etc/resolv.conf", how)?.into())
}

/// Parses `--redirect-dns` and `--capture-all-dns`. Warnings are appended to `notes`.
pub(super) fn capture(
    source: &Source<'_>,
    resolv_conf: Option<&ResolvConf>,
    notes: &mut Vec<String>,
) -> Result<DnsCapture, SettingError> {
    let redirect = source.switch(&REDIRECT_DNS)?;
    let all = source.switch(&CAPTURE_ALL_DNS)?;
    if all && !redirect {
        notes.push("--capture-all-dns: no effect: it requires --redirect-dns".to_owned());
    }
    match (redirect, all) {
        (false, _) => Ok(DnsCapture::Off),
        (true, true) => Ok(DnsCapture::All),
        (true, false) => of_resolv_conf(resolv_conf, notes).map_err(|problem| {
            let given = source.get(&REDIRECT_DNS);
            given.error(format!("{problem}, or use --capture-all-dns"))
        }),
    }
}

fn of_resolv_conf(
    resolv_conf: Option<&ResolvConf>,
    notes: &mut Vec<String>,
) -> Result<DnsCapture, String> {
    let resolv_conf = resolv_conf.ok_or(
        "requires the pod's resolv.conf, which cannot be derived from the path of a network \
         namespace: set --resolv-conf PATH",
    )?;
    let path = resolv_conf.path().display().to_string();
    let text = resolv_conf.read().map_err(|error| {
        format!("cannot read {path} ({error}): specify a file that lists the DNS servers")
    })?;
    Ok(servers(&text, &path, notes))
}

/// The servers in the text of the resolv.conf at `path`.
pub(crate) fn servers(text: &str, path: &str, notes: &mut Vec<String>) -> DnsCapture {
    let mut servers = Vec::new();
    for name in nameservers(text) {
        match name.parse::<IpAddr>() {
            Ok(server) => servers.push(server),
            Err(_) => notes.push(format!(
                "--redirect-dns: {path} has a nameserver {name:?}, which is not an IP address: DNS \
                 to it is not captured"
            )),
        }
    }
    if servers.is_empty() {
        notes.push(format!(
            "--redirect-dns: no DNS is captured, because {path} lists no server; \
             --capture-all-dns requires none"
        ));
        return DnsCapture::Off;
    }
    DnsCapture::Servers(servers)
}

/// The servers as istio-iptables' library reads them: the second word where the first is exactly
/// `nameserver`.
fn nameservers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next())?
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, process};

    use proptest::prelude::*;

    use super::*;

    fn capture_of(text: &str) -> (DnsCapture, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, text).unwrap();
        let mut notes = Vec::new();
        let dns = of_resolv_conf(Some(&ResolvConf::File(path)), &mut notes).unwrap();
        (dns, notes)
    }

    #[test]
    fn servers_are_the_second_words() {
        let text = "# nameserver 9.9.9.9\n  nameserver\t10.96.0.10 # cluster\nsearch a b\n\
                    nameserver fd00::a\nnameserver\nnameserver: 1.1.1.1\noptions ndots:5\n";
        let (dns, notes) = capture_of(text);
        let servers = ["10.96.0.10", "fd00::a"].map(|server| server.parse().unwrap());
        assert_eq!(dns, DnsCapture::Servers(servers.to_vec()));
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn an_invalid_address_is_skipped_and_reported() {
        let (dns, notes) = capture_of("nameserver fe80::1%eth0\nnameserver 010.0.0.1\n");
        assert_eq!(dns, DnsCapture::Off);
        assert!(notes[0].contains("fe80::1%eth0") && notes[1].contains("010.0.0.1"));
        assert!(notes[2].contains("--capture-all-dns"), "{notes:?}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let missing = ResolvConf::File("/no/such/resolv.conf".into());
        let error = of_resolv_conf(Some(&missing), &mut Vec::new()).unwrap_err();
        assert!(error.contains("/no/such/resolv.conf"), "{error}");
        let error = of_resolv_conf(None, &mut Vec::new()).unwrap_err();
        assert!(error.contains("--resolv-conf"), "{error}");
    }

    #[test]
    fn the_resolv_conf_of_a_process_is_below_its_root() {
        let own = ResolvConf::OfProcess(process::id());
        let direct = ResolvConf::File("/etc/resolv.conf".into());
        assert_eq!(own.read().ok(), direct.read().ok());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(nameserver .*\n|.*\n)*") {
            let _count = nameservers(&text).count();
        }
    }
}
