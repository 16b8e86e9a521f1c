//! DNS queries to the agent, and the conntrack zones that separate them from the agent's own
//! queries.

use std::net::IpAddr;

use anyhow::Result;

use super::{DNS_PORT, Rules, family_of};
use crate::settings::{Dns, items};

/// The zone of the proxy's queries and their responses.
const OUTER_ZONE: u8 = 1;
/// The zone of the apps' queries.
const INNER_ZONE: u8 = 2;

impl Rules<'_> {
    /// Without any captured server there are no rules.
    pub(super) fn is_dns_on(&self) -> bool {
        match self.settings.dns {
            Dns::Off => false,
            Dns::Servers(servers) => items(servers).next().is_some(),
            Dns::All => true,
        }
    }

    pub(super) fn capture_dns(&mut self) -> Result<()> {
        if !self.is_dns_on() {
            return Ok(());
        }
        let servers = self.servers()?;
        self.raw("-A OUTPUT -j ISTIO_OUTPUT_DNS");
        if !servers.is_empty() {
            self.nat("-A ISTIO_OUTPUT -j ISTIO_OUTPUT_DNS");
        }
        for server in &servers {
            let to = server.of(" -d ");
            self.nat(format!(
                "-A ISTIO_OUTPUT_DNS -p tcp --dport 53{to} -j REDIRECT --to-ports {DNS_PORT}"
            ));
            self.nat(format!(
                "-A ISTIO_OUTPUT_DNS -p udp --dport 53{to} -j REDIRECT --to-port {DNS_PORT}"
            ));
        }
        self.separate_owners();
        self.separate_apps(&servers);
        Ok(())
    }

    /// The servers of this family.
    fn servers(&self) -> Result<Vec<Server>> {
        let Dns::Servers(servers) = self.settings.dns else {
            return Ok(vec![Server::Any]);
        };
        let mut own = Vec::new();
        for server in items(servers) {
            let server = server.parse()?;
            if family_of(server) == self.family {
                own.push(Server::One(server));
            }
        }
        Ok(own)
    }

    fn separate_owners(&mut self) {
        let settings = self.settings;
        let uids = items(settings.uids).map(|uid| format!("--uid-owner {uid}"));
        let gids = items(settings.gids).map(|gid| format!("--gid-owner {gid}"));
        for owner in uids.chain(gids) {
            self.raw(format!(
                "-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner {owner} -j CT --zone {OUTER_ZONE}"
            ));
            self.raw(format!(
                "-A ISTIO_OUTPUT_DNS -p udp --sport {DNS_PORT} -m owner {owner} -j CT --zone \
                 {INNER_ZONE}"
            ));
        }
    }

    fn separate_apps(&mut self, servers: &[Server]) {
        if !servers.is_empty() {
            self.raw("-A PREROUTING -j ISTIO_INBOUND");
        }
        for server in servers {
            let (to, from) = (server.of(" -d "), server.of(" -s "));
            self.raw(format!(
                "-A ISTIO_OUTPUT_DNS -p udp --dport 53{to} -j CT --zone {INNER_ZONE}"
            ));
            self.raw(format!(
                "-A ISTIO_INBOUND -p udp --sport 53{from} -j CT --zone {OUTER_ZONE}"
            ));
        }
    }
}

/// The destination of queries.
enum Server {
    Any,
    One(IpAddr),
}

impl Server {
    /// The match of the server's address, or nothing.
    fn of(&self, option: &str) -> String {
        match self {
            Self::Any => String::new(),
            Self::One(ip) if ip.is_ipv4() => format!("{option}{ip}/32"),
            Self::One(ip) => format!("{option}{ip}/128"),
        }
    }
}
