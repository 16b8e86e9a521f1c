//! istio-iptables' settings: its flags and environment, parsed by its rules.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

pub mod control;
pub mod dns;
mod duration;
pub mod flags;
pub mod interfaces;
mod notes;
mod numbers;
pub mod owners;
pub mod ports;
pub mod prefixes;
mod source;

pub use self::{
    dns::{DnsCapture, ResolvConf},
    flags::IstioFlags,
    interfaces::InterfacePattern,
    owners::OwnerGroups,
};
use self::{
    owners::Ids,
    ports::{PortRange, PortSelection},
    prefixes::PrefixSelection,
    source::Source,
};

/// How inbound connections are taken to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The proxy's socket has the address of the proxy's listener.
    Redirect,
    /// The proxy's socket has the address that the client dialled, and the proxy may dial on from
    /// the client's.
    Tproxy,
}

/// What is captured of a pod's traffic, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where captured outbound connections go.
    pub outbound_port: u16,
    /// Where captured inbound connections go.
    pub inbound_port: u16,
    /// The port of tunnels to the proxy, where nothing is captured.
    pub tunnel_port: u16,
    /// How inbound connections are taken to the proxy.
    pub mode: Mode,
    /// The mark of what TPROXY takes to the proxy.
    pub tproxy_mark: u32,
    /// The routing table for that mark.
    pub tproxy_table: u32,
    /// The proxy's UIDs, in the order of the rules.
    pub proxy_uids: Ids,
    /// The proxy's GIDs, in the order of the rules.
    pub proxy_gids: Ids,
    /// The inbound ports that are captured.
    pub inbound_ports: PortSelection,
    /// The inbound ports that are not, if all are.
    pub inbound_ports_exclude: Vec<PortRange>,
    /// The outbound destinations that are captured.
    pub outbound_prefixes: PrefixSelection,
    /// The outbound destinations that are not.
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
    /// What counts as localhost in IPv4.
    pub loopback: Ipv4Net,
    /// Which DNS is captured.
    pub dns: DnsCapture,
    /// Whether packets that conntrack calls invalid are to be dropped.
    pub drop_invalid: bool,
    /// Whether any IPv6 address makes a pod an IPv6 one.
    pub dual_stack: bool,
}

/// Settings, and what must be told about how they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The settings.
    pub settings: Settings,
    /// Which flags and variables have no effect, and why.
    pub notes: Vec<String>,
}

/// A setting that is not valid. Says which flag or variable, its value, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}{}: {problem}", quoted(value.as_deref()))]
pub struct SettingError {
    /// The flag, and the variable if it came from there.
    pub setting: String,
    /// The value as given; nothing if none was.
    pub value: Option<String>,
    /// What is wrong and what is allowed.
    pub problem: String,
}

fn quoted(value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!(" {value:?}"))
}

/// The process's environment. What is not UTF-8 is no valid value either, and is named as such.
fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

impl Settings {
    /// Parses the flags, with the process's environment behind them. DNS servers are read from
    /// `resolv_conf` if they are asked for.
    pub fn from_flags(
        flags: &IstioFlags,
        resolv_conf: Option<&ResolvConf>,
    ) -> Result<Parsed, SettingError> {
        Self::from_flags_and(flags, &environment, resolv_conf)
    }

    /// As [`Settings::from_flags`], with another environment behind them.
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
        notes::refuse_gone(source)?;
        let mut notes = notes::moot(source)?;
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
        };
        notes.extend(notes::unused(source, &settings));
        Ok(Parsed { settings, notes })
    }
}

/// Any mode but TPROXY is REDIRECT, as in istio-iptables.
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

/// The items of a list that istio-iptables passes on to iptables-restore, which drops blanks around
/// a word. An item of blanks alone is no word there, but the end of the rule's options: an error.
fn words(list: &str) -> impl Iterator<Item = &str> {
    split(list).map(|item| item.trim_matches(BLANKS))
}

/// What iptables-restore has between words.
pub(crate) const BLANKS: [char; 2] = [' ', '\t'];

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        flags: IstioFlags,
    }

    fn parsed(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Parsed, SettingError> {
        let arguments = ["attach"].iter().chain(arguments);
        let command = Command::try_parse_from(arguments).unwrap();
        let source = Source {
            flags: &command.flags.given,
            environment: &|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            },
        };
        Settings::parse(&source, None)
    }

    /// Settings as these arguments and variables give them.
    pub(crate) fn settings(
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Settings, SettingError> {
        parsed(arguments, variables).map(|parsed| parsed.settings)
    }

    fn notes(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        parsed(arguments, variables).unwrap().notes
    }

    #[test]
    fn the_defaults_are_those_of_istio_iptables() {
        let settings = settings(&[], &[("ENVOY_USER", "nobody-has-this-name")]).unwrap();
        assert_eq!(
            (settings.outbound_port, settings.inbound_port),
            (15001, 15006)
        );
        assert_eq!(settings.proxy_uids.as_slice(), [1337]);
        assert_eq!(settings.proxy_gids.as_slice(), [1337]);
        assert_eq!(settings.inbound_ports, PortSelection::None);
        assert_eq!(
            settings.outbound_prefixes,
            PrefixSelection::Listed(Vec::new())
        );
        assert!(!settings.dual_stack);
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_an_empty_variable_counts() {
        let variables = [("ISTIO_INBOUND_PORTS", "80"), ("ISTIO_SERVICE_CIDR", "")];
        let from_variable = settings(&[], &variables).unwrap();
        assert_eq!(
            from_variable.inbound_ports,
            PortSelection::Listed(vec![PortRange::single(80)])
        );
        let from_flag = settings(&["-b", "*", "-i", "*"], &variables).unwrap();
        assert_eq!(from_flag.inbound_ports, PortSelection::All);
        assert_eq!(from_flag.outbound_prefixes, PrefixSelection::All);
    }

    #[test]
    fn the_outbound_port_has_no_variable() {
        let settings = settings(&[], &[("ENVOY_PORT", "16001")]).unwrap();
        assert_eq!(settings.outbound_port, 15001);
    }

    #[test]
    fn gids_are_the_uids_unless_given() {
        let same = settings(&["-u", "3,4"], &[]).unwrap();
        assert_eq!(same.proxy_gids.as_slice(), [3, 4]);
        let other = settings(&["-u", "3,4", "-g", "1"], &[]).unwrap();
        assert_eq!(other.proxy_gids.as_slice(), [1]);
    }

    #[test]
    fn the_later_of_two_variables_wins_and_bad_ones_are_ignored() {
        let both = [("DUAL_STACK", "true"), ("ISTIO_DUAL_STACK", "false")];
        assert!(!settings(&[], &both).unwrap().dual_stack);
        let bad = [("DUAL_STACK", "true"), ("ISTIO_DUAL_STACK", "perhaps")];
        assert!(settings(&[], &bad).unwrap().dual_stack);
        assert!(settings(&["--dual-stack"], &[]).unwrap().dual_stack);
        assert!(!settings(&["--dual-stack=false"], &both).unwrap().dual_stack);
        assert!(settings(&["--dual-stack=perhaps"], &[]).is_err());
    }

    #[test]
    fn any_mode_but_tproxy_is_redirect() {
        for mode in ["", "REDIRECT", "NONE", "tproxy"] {
            let settings = settings(&["-m", mode], &[]).unwrap();
            assert_eq!(settings.mode, Mode::Redirect, "{mode}");
        }
        let tproxy = ["-m", "TPROXY", "-t", "0x10", "-r", "7"];
        let settings = settings(&tproxy, &[]).unwrap();
        assert_eq!(settings.mode, Mode::Tproxy);
        assert_eq!((settings.tproxy_mark, settings.tproxy_table), (16, 7));
    }

    #[test]
    fn owner_groups_are_excluded_only_where_all_are_included() {
        let include = "ISTIO_OUTBOUND_OWNER_GROUPS";
        let exclude = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE";
        let groups = |variables: &[_]| settings(&[], variables).unwrap().owner_groups;
        let ids = |ids: &[u32]| serde_json::from_value(serde_json::json!(ids)).unwrap();
        assert_eq!(groups(&[]), OwnerGroups::AllBut(ids(&[])));
        assert_eq!(
            groups(&[(exclude, "1,root")]),
            OwnerGroups::AllBut(ids(&[1, 0]))
        );
        assert_eq!(groups(&[(include, "")]), OwnerGroups::Only(ids(&[])));
        let both = [(include, "5"), (exclude, "6")];
        assert_eq!(groups(&both), OwnerGroups::Only(ids(&[5])));
        assert!(notes(&[], &both)[0].contains(exclude));
        let many = vec!["1"; 65].join(",");
        let error = settings(&[], &[(include, &many)]).unwrap_err();
        assert_eq!(error.setting, include);
        assert!(error.problem.contains("at most 64"), "{error}");
    }

    #[test]
    fn dns_is_captured_whatever_the_server_or_not_at_all() {
        let dns = |arguments: &[&str], variables: &[_]| settings(arguments, variables).unwrap().dns;
        assert_eq!(dns(&["--capture-all-dns"], &[]), DnsCapture::Off);
        let both = ["--redirect-dns", "--capture-all-dns=true"];
        assert_eq!(dns(&both, &[]), DnsCapture::All);
        // The agent's variable is bound last.
        let variables = [
            ("REDIRECT_DNS", "false"),
            ("ISTIO_META_DNS_CAPTURE", "true"),
            ("CAPTURE_ALL_DNS", "1"),
        ];
        assert_eq!(dns(&[], &variables), DnsCapture::All);
        assert_eq!(dns(&["--redirect-dns=F"], &variables), DnsCapture::Off);
        let error = settings(&["--redirect-dns"], &[]).unwrap_err();
        assert!(error.to_string().contains("--resolv-conf"), "{error}");
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let cases: &[(&[&str], &[&str])] = &[
            (
                &["--native-nftables"],
                &["--native-nftables \"true\"", "ignored"],
            ),
            (
                &["--force-iptables-binary", "nft"],
                &["--force-iptables-binary"],
            ),
            (
                &["--network-namespace", "/run/netns/x"],
                &["--network-namespace"],
            ),
            (&["--cni-mode=1"], &["--cni-mode"]),
            (&["--force-apply"], &["--force-apply"]),
            (&["--reconcile"], &["--reconcile"]),
            (&["--log_output_level", "all:debug"], &["all:debug"]),
            (&["--log_as_json"], &["--log_as_json"]),
            (&["--drop-invalid"], &["--drop-invalid"]),
            (&["-m", "NONE"], &["NONE", "REDIRECT"]),
            (&["-t", "5"], &["--istio-inbound-tproxy-mark", "TPROXY"]),
            (
                &["-r", "5"],
                &["--istio-inbound-tproxy-route-table", "TPROXY"],
            ),
            (
                &["-b", "80", "-d", "81"],
                &["--istio-local-exclude-ports", "'*'"],
            ),
            (
                &["--capture-all-dns"],
                &["--capture-all-dns", "--redirect-dns"],
            ),
        ];
        for (arguments, words) in cases {
            let notes = notes(arguments, &[]);
            assert_eq!(notes.len(), 1, "{notes:?}");
            assert!(
                words.iter().all(|word| notes[0].contains(word)),
                "{notes:?}"
            );
        }
        let stock = [
            "-p", "15001", "-m", "REDIRECT", "-i", "*", "-b", "*", "-d", "15090",
        ];
        assert!(notes(&stock, &[("INVALID_DROP", "false")]).is_empty());
        let from_variable = notes(&[], &[("INVALID_DROP", "true")]);
        assert!(from_variable[0].contains("INVALID_DROP (--drop-invalid)"));
    }

    #[test]
    fn the_kind_of_iptables_is_checked_though_it_has_no_meaning() {
        for good in ["", "legacy", "nft"] {
            assert!(settings(&["--force-iptables-binary", good], &[]).is_ok());
        }
        let error = settings(&[], &[("FORCE_IPTABLES_BINARY", "xtables")]).unwrap_err();
        assert!(error.to_string().contains("legacy and nft"), "{error}");
    }

    #[test]
    fn flags_of_older_releases_are_refused_with_what_replaced_them() {
        let cases: &[(&[&str], &str)] = &[
            (&["-f"], "atomically"),
            (&["--restore-format=false"], "atomically"),
            (&["--clean"], "--cleanup-only"),
            (&["--output-paths", "/tmp/x"], "--dry-run"),
            (&["--host-nsenter-exec"], "--netns"),
            (&["--iptables-version", "nft"], "--force-iptables-binary"),
            (&["--iptables-trace-logging"], "run --log"),
        ];
        for (arguments, instead) in cases {
            let error = settings(arguments, &[]).unwrap_err();
            assert!(error.problem.contains(instead), "{error}");
        }
    }

    #[test]
    fn an_error_names_the_setting_the_value_and_what_is_allowed() {
        let error = settings(&[], &[("ISTIO_SERVICE_CIDR", "10.0.0.0")]).unwrap_err();
        assert_eq!(error.setting, "ISTIO_SERVICE_CIDR (--istio-service-cidr)");
        assert_eq!(error.value.as_deref(), Some("10.0.0.0"));
        assert!(error.problem.contains("10.0.0.0/16"), "{error}");
        let error = settings(&[], &[("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "")]).unwrap_err();
        assert_eq!(error.setting, "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR");
    }

    /// A setting and whether it is a switch, and values that some settings take and others do not.
    fn any_given() -> impl Strategy<Value = (&'static flags::Setting, String)> {
        let values = prop_oneof![
            Just(String::new()),
            Just("*".to_owned()),
            "[0-9]{1,6}(,[0-9]{1,6}){0,2}",
            "10\\.[0-9]\\.0\\.0/[0-9]{1,2}",
            "(eth|lo)[0-9+]?",
            "true|false|TPROXY",
            "\\PC{0,12}",
        ];
        (prop::sample::select(&flags::SETTINGS[..]), values)
            .prop_map(|(setting, value)| (by_name(setting.name().as_str()), value))
    }

    fn by_name(name: &str) -> &'static flags::Setting {
        let found = flags::SETTINGS
            .iter()
            .find(|setting| setting.name() == name);
        found.expect("it came from the table")
    }

    proptest! {
        /// Whatever is given, the answer is all settings or one error, which names what was given.
        #[test]
        fn all_or_nothing(given in prop::collection::vec(any_given(), 0..6)) {
            let variables: Vec<(&str, &str)> = given
                .iter()
                .filter_map(|(setting, value)| {
                    let name = setting.variable_names().first()?;
                    Some((*name, value.as_str()))
                })
                .collect();
            match parsed(&[], &variables) {
                Ok(parsed) => {
                    let text = serde_json::to_string(&parsed.settings).unwrap();
                    let read: Settings = serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(read, parsed.settings);
                }
                Err(error) => prop_assert!(
                    error.setting == "--redirect-dns"
                        || variables.iter().any(|(name, _)| error.setting.starts_with(name)),
                    "{}", error
                ),
            }
        }

        /// A flag wins over its variables, and it does not matter what is in those.
        #[test]
        fn a_flag_wins((setting, value) in any_given(), junk in "\\PC{0,8}") {
            if setting.long_name().is_empty() {
                return Ok(());
            }
            let argument = format!("--{}={value}", setting.long_name());
            let variables: Vec<_> = setting
                .variable_names()
                .iter()
                .map(|name| (*name, junk.as_str()))
                .collect();
            // (A GID that is not given is the UID.)
            prop_assert_eq!(parsed(&[&argument], &variables), parsed(&[&argument], &[]));
        }
    }
}
