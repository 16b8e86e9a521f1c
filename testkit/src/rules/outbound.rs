//! Outbound connections.

use anyhow::Result;

use super::{Rules, address_of, family_of};
use crate::settings::{Settings, items};

impl Rules<'_> {
    pub(super) fn capture_outbound(&mut self) -> Result<()> {
        let settings = self.settings;
        self.nat("-A OUTPUT -j ISTIO_OUTPUT");
        for port in items(settings.outbound_excluded_ports) {
            self.nat(format!("-A ISTIO_OUTPUT -p tcp --dport {port} -j RETURN"));
            self.nat(format!("-A ISTIO_OUTPUT -p udp --dport {port} -j RETURN"));
        }
        let passthrough = self.passthrough();
        self.nat(format!("-A ISTIO_OUTPUT -o lo -s {passthrough} -j RETURN"));
        self.leave_owners_alone()?;
        self.select_owner_groups();
        self.capture_dns()?;
        let localhost = self.localhost();
        self.nat(format!("-A ISTIO_OUTPUT -d {localhost} -j RETURN"));
        self.select_destinations()
    }

    /// Every UID before every GID.
    fn leave_owners_alone(&mut self) -> Result<()> {
        let settings = self.settings;
        let tunnel = settings.tunnel_port;
        let mut uid_ports = format!("-p tcp ! --dport {tunnel}");
        // With or without DNS capture.
        let gid_ports = uid_ports.clone();
        let mut app_ports = "";
        if self.is_dns_on() {
            uid_ports = format!("-p tcp -m multiport ! --dports 53,{tunnel}");
            app_ports = " -p tcp ! --dport 53";
        }
        let app_ports = (!includes_loopback(settings)?).then_some(app_ports);
        for uid in items(settings.uids) {
            self.leave_owner_alone(&format!("--uid-owner {uid}"), &uid_ports, app_ports);
        }
        for gid in items(settings.gids) {
            self.leave_owner_alone(&format!("--gid-owner {gid}"), &gid_ports, app_ports);
        }
        Ok(())
    }

    /// The rules of one UID or GID: its calls of its own pod are captured except some ports, other
    /// owners' calls of the pod pass on `app_ports`, if at all, and all other packets of the owner
    /// pass.
    fn leave_owner_alone(&mut self, owner: &str, ports: &str, app_ports: Option<&str>) {
        let localhost = self.localhost();
        self.nat(format!(
            "-A ISTIO_OUTPUT -o lo ! -d {localhost} {ports} -m owner {owner} -j ISTIO_IN_REDIRECT"
        ));
        if let Some(ports) = app_ports {
            self.nat(format!(
                "-A ISTIO_OUTPUT -o lo{ports} -m owner ! {owner} -j RETURN"
            ));
        }
        self.nat(format!("-A ISTIO_OUTPUT -m owner {owner} -j RETURN"));
    }

    /// One rule for all included groups together, which matches every owner that is in none of
    /// them; with no included group, every owner.
    fn select_owner_groups(&mut self) {
        let settings = self.settings;
        if settings.owner_groups == "*" {
            for group in items(settings.excluded_owner_groups) {
                self.nat(format!(
                    "-A ISTIO_OUTPUT -m owner --gid-owner {group} -j RETURN"
                ));
            }
            return;
        }
        let mut rule = vec!["-A ISTIO_OUTPUT".to_owned()];
        rule.extend(
            items(settings.owner_groups).map(|group| format!("-m owner ! --gid-owner {group}")),
        );
        rule.push("-j RETURN".to_owned());
        self.nat(rule.join(" "));
    }

    fn select_destinations(&mut self) -> Result<()> {
        let settings = self.settings;
        for cidr in self.own(settings.outbound_excluded_cidrs)? {
            self.nat(format!("-A ISTIO_OUTPUT -d {cidr} -j RETURN"));
        }
        for port in items(settings.outbound_ports) {
            self.nat(format!(
                "-A ISTIO_OUTPUT -p tcp --dport {port} -j ISTIO_REDIRECT"
            ));
        }
        if settings.outbound_cidrs == "*" {
            self.nat("-A ISTIO_OUTPUT -j ISTIO_REDIRECT");
            self.capture_rerouted_interfaces("");
            return Ok(());
        }
        for cidr in self.own(settings.outbound_cidrs)? {
            self.capture_rerouted_interfaces(&format!(" -d {cidr}"));
            self.nat(format!("-A ISTIO_OUTPUT -d {cidr} -j ISTIO_REDIRECT"));
        }
        Ok(())
    }

    /// The CIDRs of this family.
    fn own<'l>(&self, list: &'l str) -> Result<Vec<&'l str>> {
        let mut own = Vec::new();
        for cidr in items(list) {
            if family_of(address_of(cidr)?) == self.family {
                own.push(cidr);
            }
        }
        Ok(own)
    }
}

/// Whether the address of any included CIDR, in either family, is a loopback one.
fn includes_loopback(settings: &Settings) -> Result<bool> {
    if settings.outbound_cidrs == "*" {
        return Ok(false);
    }
    let mut found = false;
    for cidr in items(settings.outbound_cidrs) {
        found |= address_of(cidr)?.is_loopback();
    }
    Ok(found)
}
