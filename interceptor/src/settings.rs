//! istio-iptables' settings: its flags and environment, parsed as istio-iptables does.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

pub(crate) mod control;
pub(crate) mod dns;
mod duration;
pub(crate) mod flags;
pub(crate) mod interfaces;
mod notes;
mod numbers;
pub(crate) mod owners;
pub(crate) mod ports;
pub(crate) mod prefixes;
mod source;
pub(crate) mod strict;

pub(crate) use self::source::parse_bool;
pub use self::{
    dns::{DnsCapture, ResolvConf},
    flags::IstioFlags,
    interfaces::InterfacePattern,
    owners::OwnerGroups,
    ports::PortSelection,
    prefixes::PrefixSelection,
    strict::Strict,
};
use self::{owners::Ids, ports::PortRange, source::Source};

/// How inbound connections are redirected to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The proxy's socket has the address of the proxy's listener.
    Redirect,
    /// The proxy's socket has the address that the client dialed, and the proxy may connect to the app
    /// from the client's address.
    Tproxy,
}

/// Which traffic of a pod is captured, and where it is redirected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The proxy's port for captured outbound connections.
    pub outbound_port: u16,
    /// The proxy's port for captured inbound connections.
    pub inbound_port: u16,
    /// The port of the mesh's tunnels, which is not captured.
    pub tunnel_port: u16,
    /// How inbound connections are redirected to the proxy.
    pub mode: Mode,
    /// The mark of packets that TPROXY redirects.
    pub tproxy_mark: u32,
    /// The routing table for that mark.
    pub tproxy_table: u32,
    /// The proxy's UIDs, in the order of the rules.
    #[serde(deserialize_with = "owners::read_proxy_ids")]
    pub proxy_uids: Ids,
    /// The proxy's GIDs, in the order of the rules.
    #[serde(deserialize_with = "owners::read_proxy_ids")]
    pub proxy_gids: Ids,
    /// The inbound ports that are captured.
    pub inbound_ports: PortSelection,
    /// The inbound ports that are not captured, if all others are.
    pub inbound_ports_exclude: Vec<PortRange>,
    /// The outbound destinations that are captured.
    pub outbound_prefixes: PrefixSelection,
    /// The outbound destinations that are not captured.
    pub outbound_prefixes_exclude: Vec<IpNet>,
    /// The outbound ports that are captured whatever the destination.
    pub outbound_ports: Vec<PortRange>,
    /// The outbound ports that are not captured.
    pub outbound_ports_exclude: Vec<PortRange>,
    /// The interfaces whose traffic is not captured.
    pub excluded_interfaces: Vec<InterfacePattern>,
    /// The interfaces whose inbound traffic counts as outbound.
    pub rerouted_interfaces: Vec<InterfacePattern>,
    /// The groups whose outbound connections are captured.
    pub owner_groups: OwnerGroups,
    /// The IPv4 addresses that count as localhost.
    pub loopback: Ipv4Net,
    /// Which DNS is captured.
    pub dns: DnsCapture,
    /// Whether iptables would drop packets that conntrack calls invalid.
    pub drop_invalid: bool,
    /// Whether IPv6 is captured if any address of the pod is IPv6, not only if its first one is.
    pub dual_stack: bool,
    /// What strict mode refuses at the pod's interfaces.
    #[serde(default, skip_serializing_if = "Strict::is_off")]
    pub strict: Strict,
}

/// Settings, and warnings about how they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The settings.
    pub settings: Settings,
    /// Which flags and variables have no effect, and why.
    pub notes: Vec<String>,
}

/// An invalid setting: which flag or variable, its value, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}{}: {problem}", quoted(value.as_deref()))]
pub struct SettingError {
    /// The flag, and the variable if it came from there.
    pub setting: String,
    /// The value, if there is one.
    pub value: Option<String>,
    /// What is wrong and what is allowed.
    pub problem: String,
}

fn quoted(value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!(" {value:?}"))
}

/// The process's environment. A value that is not UTF-8 is invalid anyway, so it is converted lossily.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

impl Settings {
    /// Parses the flags, and for those that are not set the process's environment. DNS servers are read
    /// from `resolv_conf` if they are needed.
    pub fn from_flags(
        flags: &IstioFlags,
        resolv_conf: Option<&ResolvConf>,
    ) -> Result<Parsed, SettingError> {
        Self::from_flags_and(flags, &environment, resolv_conf)
    }

    /// The same as [`Settings::from_flags`] with another environment.
    pub fn from_flags_and(
        flags: &IstioFlags,
        environment: &dyn Fn(&str) -> Option<String>,
        resolv_conf: Option<&ResolvConf>,
    ) -> Result<Parsed, SettingError> {
        let source = Source {
            flags: &flags.given,
            environment,
        };
        Self::parse(&source, resolv_conf)
    }

    fn parse(
        source: &Source<'_>,
        resolv_conf: Option<&ResolvConf>,
    ) -> Result<Parsed, SettingError> {
        notes::refuse_removed(source)?;
        let mut notes = notes::ignored(source)?;
        let settings = Self {
            outbound_port: source.parse(&flags::ENVOY_PORT, ports::parse_listener)?,
            inbound_port: source.parse(&flags::INBOUND_CAPTURE_PORT, ports::parse_listener)?,
            tunnel_port: source.parse(&flags::INBOUND_TUNNEL_PORT, ports::parse_listener)?,
            mode: mode(source),
            tproxy_mark: source.parse(&flags::TPROXY_MARK, numbers::parse_u32)?,
            tproxy_table: source.parse(&flags::TPROXY_TABLE, numbers::parse_u32)?,
            proxy_uids: owners::proxy_uids(source)?,
            proxy_gids: owners::proxy_gids(source)?,
            inbound_ports: source.parse(&flags::INBOUND_PORTS, ports::parse_selection)?,
            inbound_ports_exclude: source
                .parse(&flags::INBOUND_PORTS_EXCLUDE, ports::parse_list)?,
            outbound_prefixes: source.parse(&flags::OUTBOUND_CIDRS, prefixes::parse_selection)?,
            outbound_prefixes_exclude: source
                .parse(&flags::OUTBOUND_CIDRS_EXCLUDE, prefixes::parse_list)?,
            outbound_ports: source.parse(&flags::OUTBOUND_PORTS, ports::parse_list)?,
            outbound_ports_exclude: source
                .parse(&flags::OUTBOUND_PORTS_EXCLUDE, ports::parse_list)?,
            excluded_interfaces: source
                .parse(&flags::EXCLUDED_INTERFACES, interfaces::parse_list)?,
            rerouted_interfaces: source
                .parse(&flags::REROUTED_INTERFACES, interfaces::parse_list)?,
            owner_groups: owners::groups(source)?,
            loopback: source.parse(&flags::LOOPBACK_CIDR, prefixes::parse_loopback)?,
            dns: dns::capture(source, resolv_conf, &mut notes)?,
            drop_invalid: source.switch(&flags::DROP_INVALID)?,
            dual_stack: source.switch(&flags::DUAL_STACK)?,
            strict: strict::mode(source)?,
        };
        notes.extend(notes::unused(source, &settings));
        Ok(Parsed { settings, notes })
    }
}

/// Any mode except TPROXY is REDIRECT, as in istio-iptables.
fn mode(source: &Source<'_>) -> Mode {
    match source.get(&flags::MODE).value.as_str() {
        "TPROXY" => Mode::Tproxy,
        _ => Mode::Redirect,
    }
}

/// Go's `Split` of istio-iptables: items between commas, empty ones dropped.
fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|item| !item.is_empty())
}

/// The items of a list that istio-iptables passes to iptables-restore, which drops blanks around a word.
/// An item that consists of blanks is not a word: there it ends the rule's options, here it is an error.
fn words(list: &str) -> impl Iterator<Item = &str> {
    split(list).map(|item| item.trim_matches(BLANKS))
}

/// The separators of words in iptables-restore.
pub(crate) const BLANKS: [char; 2] = [' ', '\t'];

#[cfg(test)]
pub(crate) mod tests;
