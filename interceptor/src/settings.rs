//! istio-iptables' settings: its flags and environment, parsed by its rules.

use clap::Args;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub mod owners;
pub mod ports;
pub mod prefixes;

use self::{
    owners::Ids,
    ports::{PortRange, PortSelection},
    prefixes::PrefixSelection,
};

/// istio-iptables' flags, as it spells them. What is not given is taken from the environment, then
/// from the default; a variable that is set but empty counts.
#[expect(clippy::doc_markdown, reason = "this is the text of --help")]
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "istio-iptables settings")]
pub struct IstioFlags {
    /// Port that captured outbound TCP goes to [default: 15001]
    #[arg(short = 'p', long, value_name = "PORT")]
    envoy_port: Option<String>,

    /// Port that captured inbound TCP goes to [env: INBOUND_CAPTURE_PORT] [default: 15006]
    #[arg(short = 'z', long, value_name = "PORT")]
    inbound_capture_port: Option<String>,

    /// UIDs of the proxy, whose own connections pass; a comma-separated list, in the order of the
    /// rules [env: PROXY_UID] [default: that of the user $ENVOY_USER (istio-proxy), else 1337]
    #[arg(short = 'u', long, value_name = "UIDS")]
    proxy_uid: Option<String>,

    /// GIDs of the proxy, alike [env: PROXY_GID] [default: what --proxy-uid is]
    #[arg(short = 'g', long, value_name = "GIDS")]
    proxy_gid: Option<String>,

    /// How inbound connections are taken to the proxy; only REDIRECT so far
    /// [env: ISTIO_INBOUND_INTERCEPTION_MODE] [default: REDIRECT]
    #[arg(short = 'm', long, value_name = "MODE")]
    istio_inbound_interception_mode: Option<String>,

    /// Inbound ports to capture: a comma-separated list, '*' for all, or '' for none
    /// [env: ISTIO_INBOUND_PORTS] [default: '']
    #[arg(short = 'b', long, value_name = "PORTS")]
    istio_inbound_ports: Option<String>,

    /// Inbound ports not to capture; only with -b '*'
    /// [env: ISTIO_LOCAL_EXCLUDE_PORTS] [default: '']
    #[arg(short = 'd', long, value_name = "PORTS")]
    istio_local_exclude_ports: Option<String>,

    /// Outbound destinations to capture: a comma-separated list of CIDRs, '*' for all, or '' for
    /// none [env: ISTIO_SERVICE_CIDR] [default: '']
    #[arg(short = 'i', long, value_name = "CIDRS")]
    istio_service_cidr: Option<String>,

    /// Outbound destinations not to capture: a comma-separated list of CIDRs
    /// [env: ISTIO_SERVICE_EXCLUDE_CIDR] [default: '']
    #[arg(short = 'x', long, value_name = "CIDRS")]
    istio_service_exclude_cidr: Option<String>,

    /// Outbound ports not to capture: a comma-separated list
    /// [env: ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE] [default: '']
    #[arg(short = 'o', long, value_name = "PORTS")]
    istio_local_outbound_ports_exclude: Option<String>,

    /// Capture IPv6 if the pod has any IPv6 address, not only if its first one is
    /// [env: DUAL_STACK, ISTIO_DUAL_STACK] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    dual_stack: Option<String>,
}

/// What is captured of a pod's traffic, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where captured outbound connections go.
    pub outbound_port: u16,
    /// Where captured inbound connections go.
    pub inbound_port: u16,
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
    /// The outbound ports that are not captured.
    pub outbound_ports_exclude: Vec<PortRange>,
    /// Whether any IPv6 address makes a pod an IPv6 one.
    pub dual_stack: bool,
}

/// A setting that is not valid. Says which flag or variable, its value, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {value:?}: {problem}")]
pub struct SettingError {
    /// The flag, and the variable if it came from there.
    pub setting: String,
    /// The value as given.
    pub value: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// A value and where it came from.
struct Given {
    setting: String,
    value: String,
}

impl Given {
    fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, SettingError> {
        parse(&self.value).map_err(|problem| SettingError {
            setting: self.setting.clone(),
            value: self.value.clone(),
            problem,
        })
    }
}

/// Looks a value up: the flag, else the environment, else the default.
struct Source<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    fn get(
        &self,
        flag: &str,
        given: Option<&str>,
        variable: impl Into<Option<&'static str>>,
        default: &str,
    ) -> Given {
        if let Some(value) = given {
            return Given {
                setting: flag.to_owned(),
                value: value.to_owned(),
            };
        }
        let variable = variable.into();
        let from_environment = variable.and_then(|name| Some((name, (self.environment)(name)?)));
        match from_environment {
            Some((name, value)) => Given {
                setting: format!("{name} ({flag})"),
                value,
            },
            None => Given {
                setting: flag.to_owned(),
                value: default.to_owned(),
            },
        }
    }
}

impl Settings {
    /// Parses the flags, with the process's environment behind them.
    pub fn from_flags(flags: &IstioFlags) -> Result<Self, SettingError> {
        Self::parse(flags, &|name| {
            // What is not UTF-8 is no valid value either, and is named as such.
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    fn parse(
        flags: &IstioFlags,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingError> {
        let source = Source { environment };
        check_mode(&source, flags)?;
        let uids = owners::proxy_uids(&source, flags.proxy_uid.as_deref());
        let gids = source.get(
            "--proxy-gid",
            flags.proxy_gid.as_deref(),
            "PROXY_GID",
            &uids.value,
        );
        // Set but empty means the default here, too.
        let gids = if gids.value.is_empty() {
            Given {
                setting: gids.setting,
                value: uids.value.clone(),
            }
        } else {
            gids
        };
        Ok(Self {
            // No variable since Istio 1.19.
            outbound_port: source
                .get("--envoy-port", flags.envoy_port.as_deref(), None, "15001")
                .parse(ports::parse_listener)?,
            inbound_port: source
                .get(
                    "--inbound-capture-port",
                    flags.inbound_capture_port.as_deref(),
                    "INBOUND_CAPTURE_PORT",
                    "15006",
                )
                .parse(ports::parse_listener)?,
            proxy_uids: uids.parse(owners::parse_uids)?,
            proxy_gids: gids.parse(owners::parse_gids)?,
            inbound_ports: source
                .get(
                    "--istio-inbound-ports",
                    flags.istio_inbound_ports.as_deref(),
                    "ISTIO_INBOUND_PORTS",
                    "",
                )
                .parse(ports::parse_selection)?,
            inbound_ports_exclude: source
                .get(
                    "--istio-local-exclude-ports",
                    flags.istio_local_exclude_ports.as_deref(),
                    "ISTIO_LOCAL_EXCLUDE_PORTS",
                    "",
                )
                .parse(ports::parse_list)?,
            outbound_prefixes: source
                .get(
                    "--istio-service-cidr",
                    flags.istio_service_cidr.as_deref(),
                    "ISTIO_SERVICE_CIDR",
                    "",
                )
                .parse(prefixes::parse_selection)?,
            outbound_prefixes_exclude: source
                .get(
                    "--istio-service-exclude-cidr",
                    flags.istio_service_exclude_cidr.as_deref(),
                    "ISTIO_SERVICE_EXCLUDE_CIDR",
                    "",
                )
                .parse(prefixes::parse_list)?,
            outbound_ports_exclude: source
                .get(
                    "--istio-local-outbound-ports-exclude",
                    flags.istio_local_outbound_ports_exclude.as_deref(),
                    "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
                    "",
                )
                .parse(ports::parse_list)?,
            dual_stack: dual_stack(&source, flags)?,
        })
    }
}

/// Any mode but TPROXY is REDIRECT, as in istio-iptables.
fn check_mode(source: &Source<'_>, flags: &IstioFlags) -> Result<(), SettingError> {
    let mode = source.get(
        "--istio-inbound-interception-mode",
        flags.istio_inbound_interception_mode.as_deref(),
        "ISTIO_INBOUND_INTERCEPTION_MODE",
        "",
    );
    mode.parse(|mode| match mode {
        "TPROXY" => Err("is not supported yet: use REDIRECT".to_owned()),
        _ => Ok(()),
    })
}

/// `ISTIO_DUAL_STACK` is bound last and wins over `DUAL_STACK`; an unreadable variable counts as
/// not set, an unreadable flag is an error.
fn dual_stack(source: &Source<'_>, flags: &IstioFlags) -> Result<bool, SettingError> {
    if flags.dual_stack.is_some() {
        return source
            .get("--dual-stack", flags.dual_stack.as_deref(), None, "")
            .parse(|text| {
                parse_bool(text).ok_or_else(|| "is not a boolean: give true or false".to_owned())
            });
    }
    let from = |variable| (source.environment)(variable).and_then(|text| parse_bool(&text));
    Ok(from("ISTIO_DUAL_STACK")
        .or_else(|| from("DUAL_STACK"))
        .unwrap_or(false))
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `Split` of istio-iptables: items between commas, empty ones dropped. White space around an
/// item is dropped too: there, iptables-restore does that.
fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        flags: IstioFlags,
    }

    fn settings(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Settings, SettingError> {
        let arguments = ["attach"].iter().chain(arguments);
        let command = Command::try_parse_from(arguments).unwrap();
        Settings::parse(&command.flags, &|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
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
            assert!(settings(&["-m", mode], &[]).is_ok(), "{mode}");
        }
        assert!(settings(&["-m", "TPROXY"], &[]).is_err());
    }

    #[test]
    fn an_error_names_the_setting_the_value_and_what_is_allowed() {
        let error = settings(&[], &[("ISTIO_SERVICE_CIDR", "10.0.0.0")]).unwrap_err();
        assert_eq!(error.setting, "ISTIO_SERVICE_CIDR (--istio-service-cidr)");
        assert_eq!(error.value, "10.0.0.0");
        assert!(error.problem.contains("10.0.0.0/16"), "{error}");
    }
}
