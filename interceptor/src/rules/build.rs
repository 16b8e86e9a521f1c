//! Builds the rules of settings, in the order of istio-iptables.

use std::net::IpAddr;

use interceptor_ebpf::DNS_CAPTURE_PORT;
use ipnet::IpNet;

use super::{Family, Rule, Table};
use crate::settings::{
    DnsCapture, Mode, OwnerGroups, Settings, ports::PortSelection, prefixes::PrefixSelection,
};

const INBOUND: &str = "ISTIO_INBOUND";
const OUTPUT: &str = "ISTIO_OUTPUT";
const OUTPUT_DNS: &str = "ISTIO_OUTPUT_DNS";
const TO_OUTBOUND_PORT: &str = "ISTIO_REDIRECT";
const TO_INBOUND_PORT: &str = "ISTIO_IN_REDIRECT";

/// The mark of packets that the proxy sends to the pod itself.
const OUTBOUND_MARK: u32 = 1338;

pub(super) fn rules(settings: &Settings, family: Family) -> Vec<Rule> {
    let mut builder = Builder {
        settings,
        family,
        rules: Vec::new(),
    };
    builder.interfaces();
    builder.invalid();
    builder.redirects();
    builder.inbound();
    builder.output();
    builder.owners();
    builder.owner_groups();
    builder.dns();
    builder.destinations();
    builder.tproxy();
    builder.rules
}

/// An option of `-m owner` with its ID.
struct Owner {
    option: &'static str,
    id: u32,
}

struct Builder<'a> {
    settings: &'a Settings,
    family: Family,
    rules: Vec<Rule>,
}

impl<'a> Builder<'a> {
    fn add(&mut self, table: Table, chain: &'static str, specification: impl Into<String>) {
        self.rules.push(Rule {
            table,
            chain: chain.into(),
            position: None,
            specification: specification.into(),
        });
    }

    fn nat(&mut self, chain: &'static str, specification: impl Into<String>) {
        self.add(Table::Nat, chain, specification);
    }

    fn mangle(&mut self, chain: &'static str, specification: impl Into<String>) {
        self.add(Table::Mangle, chain, specification);
    }

    fn insert(
        &mut self,
        table: Table,
        chain: &'static str,
        position: u32,
        specification: impl Into<String>,
    ) {
        self.rules.push(Rule {
            table,
            chain: chain.into(),
            position: Some(position),
            specification: specification.into(),
        });
    }

    fn localhost(&self) -> String {
        match self.family {
            Family::V4 => self.settings.loopback.to_string(),
            Family::V6 => "::1/128".to_owned(),
        }
    }

    /// The source of the proxy's connections to the app.
    const fn passthrough(&self) -> &'static str {
        match self.family {
            Family::V4 => "127.0.0.6/32",
            Family::V6 => "::6/128",
        }
    }

    fn is_tproxy(&self) -> bool {
        self.settings.mode == Mode::Tproxy
    }

    fn uids(&self) -> impl Iterator<Item = Owner> + use<'a> {
        owners("--uid-owner", self.settings.proxy_uids.as_slice())
    }

    fn gids(&self) -> impl Iterator<Item = Owner> + use<'a> {
        owners("--gid-owner", self.settings.proxy_gids.as_slice())
    }

    fn of_family<'b>(&self, nets: &'b [IpNet]) -> impl Iterator<Item = &'b IpNet> + use<'b> {
        let family = self.family;
        nets.iter().filter(move |net| family.has(net))
    }

    fn interfaces(&mut self) {
        let excluded = &self.settings.excluded_interfaces;
        let tables = if self.is_tproxy() {
            &[Table::Nat, Table::Mangle][..]
        } else {
            &[Table::Nat]
        };
        for table in tables {
            for name in excluded {
                self.add(*table, "PREROUTING", format!("-i {name} -j RETURN"));
                self.add(*table, "OUTPUT", format!("-o {name} -j RETURN"));
            }
        }
        for name in &self.settings.rerouted_interfaces {
            self.insert(Table::Nat, "PREROUTING", 1, format!("-i {name} -j RETURN"));
        }
    }

    fn invalid(&mut self) {
        if self.settings.drop_invalid {
            let invalid = "-m conntrack --ctstate INVALID -j ISTIO_DROP";
            self.mangle("PREROUTING", invalid);
            self.mangle("ISTIO_DROP", "-j DROP");
        }
    }

    fn redirects(&mut self) {
        let Settings {
            tunnel_port,
            outbound_port,
            inbound_port,
            ..
        } = self.settings;
        self.nat(INBOUND, format!("-p tcp --dport {tunnel_port} -j RETURN"));
        let redirect = |port| format!("-p tcp -j REDIRECT --to-ports {port}");
        self.nat(TO_OUTBOUND_PORT, redirect(outbound_port));
        self.nat(TO_INBOUND_PORT, redirect(inbound_port));
    }

    fn inbound(&mut self) {
        if self.settings.inbound_ports == PortSelection::None {
            return;
        }
        let table = if self.is_tproxy() {
            self.tproxy_chains();
            Table::Mangle
        } else {
            Table::Nat
        };
        self.add(table, "PREROUTING", format!("-p tcp -j {INBOUND}"));
        match &self.settings.inbound_ports {
            PortSelection::None => {}
            PortSelection::All => {
                for port in &self.settings.inbound_ports_exclude {
                    self.add(table, INBOUND, format!("-p tcp --dport {port} -j RETURN"));
                }
                self.capture_inbound("-p tcp");
            }
            PortSelection::Listed(ports) => {
                for port in ports {
                    self.capture_inbound(&format!("-p tcp --dport {port}"));
                }
            }
        }
    }

    fn tproxy_chains(&mut self) {
        let localhost = self.localhost();
        let Settings {
            tproxy_mark: mark,
            inbound_port: port,
            ..
        } = self.settings;
        self.mangle("ISTIO_DIVERT", format!("-j MARK --set-mark {mark}"));
        self.mangle("ISTIO_DIVERT", "-j ACCEPT");
        let target = format!("TPROXY --tproxy-mark {mark}/0xffffffff --on-port {port}");
        self.mangle(
            "ISTIO_TPROXY",
            format!("! -d {localhost} -p tcp -j {target}"),
        );
    }

    fn capture_inbound(&mut self, matched: &str) {
        if self.is_tproxy() {
            let known = "-m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT";
            self.mangle(INBOUND, format!("{matched} {known}"));
            self.mangle(INBOUND, format!("{matched} -j ISTIO_TPROXY"));
        } else {
            self.nat(INBOUND, format!("{matched} -j {TO_INBOUND_PORT}"));
        }
    }

    fn output(&mut self) {
        self.nat("OUTPUT", format!("-j {OUTPUT}"));
        for port in &self.settings.outbound_ports_exclude {
            self.nat(OUTPUT, format!("-p tcp --dport {port} -j RETURN"));
            self.nat(OUTPUT, format!("-p udp --dport {port} -j RETURN"));
        }
        let passthrough = self.passthrough();
        self.nat(OUTPUT, format!("-o lo -s {passthrough} -j RETURN"));
    }

    fn owners(&mut self) {
        let tunnel = self.settings.tunnel_port;
        let not_tunnel = format!("! --dport {tunnel}");
        let neither_dns = format!("-m multiport ! --dports 53,{tunnel}");
        let with_dns = self.settings.dns != DnsCapture::Off;
        let ports = if with_dns { &neither_dns } else { &not_tunnel };
        for uid in self.uids() {
            self.owner(&uid, ports);
        }
        // Also with DNS, as in istio-iptables.
        for gid in self.gids() {
            self.owner(&gid, &not_tunnel);
        }
    }

    /// The rules for the proxy's own connections. Only those that match `ports` are captured when they go
    /// to the pod itself.
    fn owner(&mut self, Owner { option, id }: &Owner, ports: &str) {
        let localhost = self.localhost();
        self.nat(
            OUTPUT,
            format!(
                "-o lo ! -d {localhost} -p tcp {ports} -m owner {option} {id} -j {TO_INBOUND_PORT}"
            ),
        );
        if !includes_loopback(self.settings) {
            let not_dns = if self.settings.dns == DnsCapture::Off {
                ""
            } else {
                "-p tcp ! --dport 53 "
            };
            self.nat(
                OUTPUT,
                format!("-o lo {not_dns}-m owner ! {option} {id} -j RETURN"),
            );
        }
        self.nat(OUTPUT, format!("-m owner {option} {id} -j RETURN"));
    }

    fn owner_groups(&mut self) {
        match &self.settings.owner_groups {
            OwnerGroups::AllBut(groups) => {
                for group in groups.as_slice() {
                    self.nat(OUTPUT, format!("-m owner --gid-owner {group} -j RETURN"));
                }
            }
            OwnerGroups::Only(groups) => {
                let none_of = groups
                    .as_slice()
                    .iter()
                    .map(|group| format!("-m owner ! --gid-owner {group} "));
                let none_of = none_of.collect::<Vec<_>>().concat();
                self.nat(OUTPUT, format!("{none_of}-j RETURN"));
            }
        }
    }

    /// Without servers of this family, the proxy's own DNS queries still get their zones.
    fn dns(&mut self) {
        let servers = match &self.settings.dns {
            DnsCapture::Off => return,
            DnsCapture::All => vec![Server::Any],
            DnsCapture::Servers(servers) => {
                let family = self.family;
                let servers = servers.iter().map(|address| IpNet::from(*address));
                let servers = servers.filter(|server| family.has(server));
                servers.map(|server| Server::One(server.addr())).collect()
            }
        };
        self.add(Table::Raw, "OUTPUT", format!("-j {OUTPUT_DNS}"));
        if !servers.is_empty() {
            self.nat(OUTPUT, format!("-j {OUTPUT_DNS}"));
        }
        for (protocol, option) in [("tcp", "--to-ports"), ("udp", "--to-port")] {
            for server in &servers {
                let to = server.matched("-d");
                let target = format!("REDIRECT {option} {DNS_CAPTURE_PORT}");
                self.nat(
                    OUTPUT_DNS,
                    format!("-p {protocol} --dport 53 {to}-j {target}"),
                );
            }
        }
        self.dns_zones(&servers);
    }

    /// The proxy's queries are in zone 1, the app's in zone 2.
    fn dns_zones(&mut self, servers: &[Server]) {
        for Owner { option, id } in self.uids().chain(self.gids()) {
            let owner = format!("-m owner {option} {id}");
            let query = format!("-p udp --dport 53 {owner} -j CT --zone 1");
            self.add(Table::Raw, OUTPUT_DNS, query);
            let response = format!("-p udp --sport {DNS_CAPTURE_PORT} {owner} -j CT --zone 2");
            self.add(Table::Raw, OUTPUT_DNS, response);
        }
        if !servers.is_empty() {
            self.add(Table::Raw, "PREROUTING", format!("-j {INBOUND}"));
        }
        for server in servers {
            let (to, from) = (server.matched("-d"), server.matched("-s"));
            let query = format!("-p udp --dport 53 {to}-j CT --zone 2");
            self.add(Table::Raw, OUTPUT_DNS, query);
            let response = format!("-p udp --sport 53 {from}-j CT --zone 1");
            self.add(Table::Raw, INBOUND, response);
        }
    }

    fn destinations(&mut self) {
        let settings = self.settings;
        let localhost = self.localhost();
        self.nat(OUTPUT, format!("-d {localhost} -j RETURN"));
        for net in self.of_family(&settings.outbound_prefixes_exclude) {
            self.nat(OUTPUT, format!("-d {net} -j RETURN"));
        }
        for port in &settings.outbound_ports {
            self.nat(
                OUTPUT,
                format!("-p tcp --dport {port} -j {TO_OUTBOUND_PORT}"),
            );
        }
        match &settings.outbound_prefixes {
            PrefixSelection::All => {
                self.nat(OUTPUT, format!("-j {TO_OUTBOUND_PORT}"));
                self.reroute("");
            }
            PrefixSelection::Listed(included) => {
                for net in self.of_family(included) {
                    self.reroute(&format!("-d {net} "));
                    self.nat(OUTPUT, format!("-d {net} -j {TO_OUTBOUND_PORT}"));
                }
            }
        }
    }

    fn reroute(&mut self, to: &str) {
        for name in &self.settings.rerouted_interfaces {
            let specification = format!("-i {name} {to}-j {TO_OUTBOUND_PORT}");
            self.insert(Table::Nat, "PREROUTING", 1, specification);
        }
    }

    /// Added even if no inbound port is captured, so that no rule jumps to the chain.
    fn tproxy(&mut self) {
        if !self.is_tproxy() {
            return;
        }
        let (localhost, passthrough) = (self.localhost(), self.passthrough());
        let mark = self.settings.tproxy_mark;
        self.mangle(
            "PREROUTING",
            format!("-p tcp -m mark --mark {mark} -j CONNMARK --save-mark"),
        );
        self.mangle(
            "OUTPUT",
            format!("-p tcp -o lo -m mark --mark {mark} -j RETURN"),
        );
        for Owner { option, id } in self.uids().chain(self.gids()) {
            let matched = format!("! -d {localhost} -p tcp -o lo -m owner {option} {id}");
            self.mangle(
                "OUTPUT",
                format!("{matched} -j MARK --set-mark {OUTBOUND_MARK}"),
            );
        }
        self.mangle(
            "OUTPUT",
            format!("-p tcp -m connmark --mark {mark} -j CONNMARK --restore-mark"),
        );
        let passed = [
            format!("-p tcp -m mark --mark {mark} -j RETURN"),
            format!("-p tcp -s {passthrough} -i lo -j RETURN"),
            format!("-p tcp -i lo -m mark ! --mark {OUTBOUND_MARK} -j RETURN"),
        ];
        for (position, specification) in (1..).zip(passed) {
            self.insert(Table::Mangle, INBOUND, position, specification);
        }
    }
}

fn owners(option: &'static str, ids: &[u32]) -> impl Iterator<Item = Owner> {
    ids.iter().map(move |id| Owner { option, id: *id })
}

/// The servers whose DNS is captured.
enum Server {
    Any,
    One(IpAddr),
}

impl Server {
    /// The match, followed by a space.
    fn matched(&self, option: &str) -> String {
        match self {
            Self::Any => String::new(),
            Self::One(address) => format!("{option} {} ", IpNet::from(*address)),
        }
    }
}

/// Whether the address of an included CIDR of any family is a loopback address, whatever the CIDR covers.
fn includes_loopback(settings: &Settings) -> bool {
    match &settings.outbound_prefixes {
        PrefixSelection::All => false,
        PrefixSelection::Listed(included) => included.iter().any(|net| net.addr().is_loopback()),
    }
}
