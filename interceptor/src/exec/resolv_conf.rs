//! The sandbox's `/etc/resolv.conf`.
//!
//! A host's local resolver (systemd-resolved, dnsmasq) listens on the host's own `lo`, which the sandbox
//! does not have. There, pasta forwards DNS to it from [`FORWARDER`].

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};

pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Link-local, so that it is no address of a real server.
pub(super) const FORWARDER: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);

/// A file for the sandbox. Deleted when dropped.
pub(crate) struct ResolvConf(PathBuf);

impl ResolvConf {
    /// Writes the file, if the host's own has only local resolvers.
    pub(crate) fn write_if_needed() -> Result<Option<Self>> {
        let own = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let Some(text) = replacement(&own) else {
            return Ok(None);
        };
        let path = format!("/run/interceptor-exec-{}.resolv.conf", process::id());
        fs::write(&path, text).with_context(|| format!("cannot write {path}"))?;
        Ok(Some(Self(path.into())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        let _deleted = fs::remove_file(&self.0);
    }
}

/// The same with the forwarder in place of local resolvers; `None` if there is another one.
fn replacement(text: &str) -> Option<String> {
    let servers = || text.lines().filter_map(server);
    if servers().next().is_none() || !servers().all(|server| server.is_loopback()) {
        return None;
    }
    let others = text.lines().filter(|line| server(line).is_none());
    let lines: Vec<_> = others.map(|line| format!("{line}\n")).collect();
    Some(format!("{}nameserver {FORWARDER}\n", lines.concat()))
}

fn server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver"))
        .then(|| words.next()?.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_resolvers_are_replaced() {
        let stub = "# stub\nnameserver 127.0.0.53\noptions edns0\nsearch example.org\n";
        let expected = "# stub\noptions edns0\nsearch example.org\nnameserver 169.254.53.53\n";
        assert_eq!(replacement(stub).as_deref(), Some(expected));
        assert_eq!(replacement("nameserver 10.0.0.2\n"), None);
        assert_eq!(
            replacement("nameserver 127.0.0.1\nnameserver 10.0.0.2\n"),
            None
        );
        assert_eq!(replacement(""), None);
    }
}
