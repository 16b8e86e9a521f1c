//! The table of istio-iptables' flags and variables: names, defaults and help.
//!
//! The command line, its help and the lookups are built from this table.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

const HEADING: &str = "istio-iptables settings";
const IGNORED_HEADING: &str = "istio-iptables settings that are accepted and ignored";

/// One setting of istio-iptables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    short: Option<char>,
    /// Empty if it has no flag.
    long: &'static str,
    /// The value's name in help; `None` if it is a switch.
    value: Option<&'static str>,
    variables: &'static [&'static str],
    default: &'static str,
    help: &'static str,
    /// Whether its value may start with a dash, as a negative duration does.
    allows_hyphen: bool,
}

impl Setting {
    const fn new(long: &'static str, value: Option<&'static str>, default: &'static str) -> Self {
        Self {
            short: None,
            long,
            value,
            variables: &[],
            default,
            help: "",
            allows_hyphen: false,
        }
    }

    const fn value(long: &'static str, value: &'static str) -> Self {
        Self::new(long, Some(value), "")
    }

    const fn switch(long: &'static str) -> Self {
        Self::new(long, None, "false")
    }

    const fn variable_only(variable: &'static [&'static str]) -> Self {
        Self::new("", Some(""), "").variables(variable)
    }

    const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    /// Later variables override earlier ones.
    const fn variables(mut self, variables: &'static [&'static str]) -> Self {
        self.variables = variables;
        self
    }

    const fn default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }

    const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    const fn allows_hyphen(mut self) -> Self {
        self.allows_hyphen = true;
        self
    }

    /// Its variables; the last that is set takes effect.
    #[must_use]
    pub(crate) const fn variable_names(&self) -> &'static [&'static str] {
        self.variables
    }

    /// Its value if it is not set.
    #[must_use]
    pub(crate) const fn default_value(&self) -> &'static str {
        self.default
    }

    /// Whether it is a boolean.
    #[must_use]
    pub(crate) const fn is_switch(&self) -> bool {
        self.value.is_none()
    }

    /// The flag with its dashes, or the variables.
    pub(super) fn name(&self) -> String {
        match self.long {
            "" => self.variables.join(", "),
            long => format!("--{long}"),
        }
    }

    fn argument(&self) -> Arg {
        let argument = Arg::new(self.long)
            .long(self.long)
            .action(ArgAction::Set)
            .help(self.full_help());
        let argument = match self.short {
            Some(short) => argument.short(short),
            None => argument,
        };
        match self.value {
            Some(name) => argument
                .value_name(name)
                .allow_hyphen_values(self.allows_hyphen),
            None => argument
                .value_name("BOOL")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        }
    }

    fn full_help(&self) -> String {
        let mut help = self.help.to_owned();
        if !self.variables.is_empty() {
            help = format!("{help} [env: {}]", self.variables.join(", "));
        }
        // A default that depends on other settings is part of the help.
        if help.contains("[default") {
            return help;
        }
        let default = if self.default.is_empty() {
            "''"
        } else {
            self.default
        };
        format!("{help} [default: {default}]")
    }
}

pub(super) const ENVOY_PORT: Setting = Setting::value("envoy-port", "PORT")
    .short('p')
    // No variable since Istio 1.19.
    .default("15001")
    .help("Port that captured outbound TCP goes to");

pub(super) const INBOUND_CAPTURE_PORT: Setting = Setting::value("inbound-capture-port", "PORT")
    .short('z')
    .variables(&["INBOUND_CAPTURE_PORT"])
    .default("15006")
    .help("Port that captured inbound TCP goes to");

pub(super) const INBOUND_TUNNEL_PORT: Setting = Setting::value("inbound-tunnel-port", "PORT")
    .short('e')
    .variables(&["INBOUND_TUNNEL_PORT"])
    .default("15008")
    .help("Port of the proxy's tunnel, which is not captured (except inbound with -m TPROXY)");

pub(super) const PROXY_UID: Setting = Setting::value("proxy-uid", "UIDS")
    .short('u')
    .variables(&["PROXY_UID"])
    .help(
        "UIDs of the proxy, whose own connections are not captured; a comma-separated list, in \
         the order of the rules [default: UID of the user $ENVOY_USER (istio-proxy), else 1337]",
    );

pub(super) const PROXY_GID: Setting = Setting::value("proxy-gid", "GIDS")
    .short('g')
    .variables(&["PROXY_GID"])
    .help("GIDs of the proxy, in the same format [default: the value of --proxy-uid]");

pub(super) const MODE: Setting = Setting::value("istio-inbound-interception-mode", "MODE")
    .short('m')
    .variables(&["ISTIO_INBOUND_INTERCEPTION_MODE"])
    .help("How inbound connections reach the proxy: TPROXY; any other value means REDIRECT");

pub(super) const TPROXY_MARK: Setting = Setting::value("istio-inbound-tproxy-mark", "MARK")
    .short('t')
    .variables(&["ISTIO_INBOUND_TPROXY_MARK"])
    .default("1337")
    .help("Packet mark of -m TPROXY, decimal or 0x...");

pub(super) const TPROXY_TABLE: Setting =
    Setting::value("istio-inbound-tproxy-route-table", "TABLE")
        .short('r')
        .variables(&["ISTIO_INBOUND_TPROXY_ROUTE_TABLE"])
        .default("133")
        .help("Routing table of -m TPROXY's mark, decimal or 0x...");

pub(super) const INBOUND_PORTS: Setting = Setting::value("istio-inbound-ports", "PORTS")
    .short('b')
    .variables(&["ISTIO_INBOUND_PORTS"])
    .help("Inbound ports to capture: a comma-separated list, '*' for all, or '' for none");

pub(super) const INBOUND_PORTS_EXCLUDE: Setting =
    Setting::value("istio-local-exclude-ports", "PORTS")
        .short('d')
        .variables(&["ISTIO_LOCAL_EXCLUDE_PORTS"])
        .help("Inbound ports not to capture; only with -b '*'");

pub(super) const EXCLUDED_INTERFACES: Setting = Setting::value("istio-exclude-interfaces", "NAMES")
    .short('c')
    .variables(&["ISTIO_EXCLUDE_INTERFACES"])
    .help("Interfaces whose traffic is not captured: a comma-separated list; eth+ matches all names that start with eth");

pub(super) const OUTBOUND_CIDRS: Setting = Setting::value("istio-service-cidr", "CIDRS")
    .short('i')
    .variables(&["ISTIO_SERVICE_CIDR"])
    .help(
        "Outbound destinations to capture: a comma-separated list of CIDRs, '*' for all, or '' \
         for none",
    );

pub(super) const OUTBOUND_CIDRS_EXCLUDE: Setting =
    Setting::value("istio-service-exclude-cidr", "CIDRS")
        .short('x')
        .variables(&["ISTIO_SERVICE_EXCLUDE_CIDR"])
        .help("Outbound destinations not to capture: a comma-separated list of CIDRs");

pub(super) const OUTBOUND_PORTS: Setting = Setting::value("istio-outbound-ports", "PORTS")
    .short('q')
    .variables(&["ISTIO_OUTBOUND_PORTS"])
    .help("Outbound ports to capture for every destination except those of -x: a comma-separated list");

pub(super) const OUTBOUND_PORTS_EXCLUDE: Setting =
    Setting::value("istio-local-outbound-ports-exclude", "PORTS")
        .short('o')
        .variables(&["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"])
        .help("Outbound ports not to capture: a comma-separated list");

pub(super) const REROUTED_INTERFACES: Setting = Setting::value("kube-virt-interfaces", "NAMES")
    .short('k')
    .variables(&["KUBE_VIRT_INTERFACES"])
    .help(
        "Interfaces of virtual machines, whose traffic counts as outbound: a comma-separated list",
    );

pub(super) const REDIRECT_DNS: Setting = Setting::switch("redirect-dns")
    .variables(&["REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE"])
    .help(
        "Capture DNS over UDP and TCP to the servers in the pod's resolv.conf, and redirect it to port 15053",
    );

pub(super) const CAPTURE_ALL_DNS: Setting = Setting::switch("capture-all-dns")
    .variables(&["CAPTURE_ALL_DNS"])
    .help("With --redirect-dns: capture DNS to all servers, not only those in resolv.conf");

pub(super) const DROP_INVALID: Setting = Setting::switch("drop-invalid")
    .variables(&["DROP_INVALID", "INVALID_DROP"])
    .help("Drop packets that conntrack calls invalid; no effect here, as there is no conntrack");

pub(super) const DUAL_STACK: Setting = Setting::switch("dual-stack")
    .variables(&["DUAL_STACK", "ISTIO_DUAL_STACK"])
    .help("Capture IPv6 if any of the pod's addresses is IPv6, not only if the first one is");

pub(super) const STRICT: Setting = Setting::value("strict", "MODE")
    .variables(&["INTERCEPTOR_STRICT"])
    .default("off")
    .help(
        "What may pass the pod's interfaces only through the proxy or by an exemption of the other \
         settings, also from raw sockets and forwarded: tcp, all (every protocol; DNS is exempt), \
         or off, as with iptables",
    );

pub(super) const ENVOY_USER: Setting =
    Setting::variable_only(&["ENVOY_USER"]).default("istio-proxy");

pub(super) const OWNER_GROUPS: Setting =
    Setting::variable_only(&["ISTIO_OUTBOUND_OWNER_GROUPS"]).default("*");

pub(super) const OWNER_GROUPS_EXCLUDE: Setting =
    Setting::variable_only(&["ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"]);

pub(super) const LOOPBACK_CIDR: Setting =
    Setting::variable_only(&["ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"]).default("127.0.0.1/32");

/// The settings that determine what is captured.
pub(crate) const SETTINGS: [Setting; 25] = [
    ENVOY_PORT,
    INBOUND_CAPTURE_PORT,
    INBOUND_TUNNEL_PORT,
    PROXY_UID,
    PROXY_GID,
    MODE,
    TPROXY_MARK,
    TPROXY_TABLE,
    INBOUND_PORTS,
    INBOUND_PORTS_EXCLUDE,
    EXCLUDED_INTERFACES,
    OUTBOUND_CIDRS,
    OUTBOUND_CIDRS_EXCLUDE,
    OUTBOUND_PORTS,
    OUTBOUND_PORTS_EXCLUDE,
    REROUTED_INTERFACES,
    REDIRECT_DNS,
    CAPTURE_ALL_DNS,
    DROP_INVALID,
    DUAL_STACK,
    STRICT,
    ENVOY_USER,
    OWNER_GROUPS,
    OWNER_GROUPS_EXCLUDE,
    LOOPBACK_CIDR,
];

pub(super) const FORCE_IPTABLES_BINARY: Setting =
    Setting::value("force-iptables-binary", "KIND").variables(&["FORCE_IPTABLES_BINARY"]);

const NO_RULES: &str = "Interceptor writes no iptables rules";
const OTHER_LOG: &str = "errors and warnings go to standard error; set RUST_LOG for more";

/// The settings that are accepted and ignored, with the reason.
pub(crate) const IGNORED: [(Setting, &str); 18] = [
    (FORCE_IPTABLES_BINARY, NO_RULES),
    (
        Setting::switch("native-nftables").variables(&["NATIVE_NFTABLES"]),
        NO_RULES,
    ),
    (
        Setting::switch("reconcile").variables(&["RECONCILE"]),
        "new settings always replace the previous ones atomically",
    ),
    (
        Setting::switch("force-apply").variables(&["FORCE_APPLY"]),
        "settings are always applied, and applying the same settings again changes nothing",
    ),
    (
        Setting::value("network-namespace", "PATH").variables(&["NETWORK_NAMESPACE"]),
        "Interceptor uses no xtables lock; set --netns to the network namespace",
    ),
    (
        Setting::switch("cni-mode").variables(&["CNI_MODE"]),
        "Interceptor uses no xtables lock",
    ),
    (
        Setting::variable_only(&["DRY_RUN_FILE_PATH"]),
        "--dry-run prints on standard output",
    ),
    (Setting::value("log_output_level", "LEVELS"), OTHER_LOG),
    (Setting::value("log_target", "PATHS"), OTHER_LOG),
    (Setting::switch("log_as_json"), OTHER_LOG),
    (Setting::value("log_caller", "SCOPES"), OTHER_LOG),
    (Setting::value("log_stacktrace_level", "LEVELS"), OTHER_LOG),
    (Setting::value("log_rotate", "PATH"), OTHER_LOG),
    (Setting::value("log_rotate_max_age", "DAYS"), OTHER_LOG),
    (
        Setting::value("log_rotate_max_backups", "NUMBER"),
        OTHER_LOG,
    ),
    (
        Setting::value("log_rotate_max_size", "MEGABYTES"),
        OTHER_LOG,
    ),
    (Setting::value("vklog", "LEVEL"), OTHER_LOG),
    (
        Setting::variable_only(&["IPTABLES_TRACE_LOGGING"]),
        "Istio 1.26 removed it: use `interceptor run --log`, which logs every verdict",
    ),
];

/// The settings that current Istio releases no longer have, with what to do instead.
pub(crate) const REMOVED: [(Setting, &str); 6] = [
    (
        Setting::switch("restore-format").short('f'),
        "settings are always applied atomically: remove the flag",
    ),
    (
        Setting::switch("clean"),
        "use --cleanup-only, or `interceptor detach`",
    ),
    (
        Setting::value("output-paths", "PATHS"),
        "use --dry-run, which prints the equivalent rules",
    ),
    (
        Setting::switch("host-nsenter-exec"),
        "use `interceptor attach --netns PATH|PID`",
    ),
    (
        Setting::value("iptables-version", "VERSION"),
        "its successor is --force-iptables-binary, which Interceptor ignores: remove the flag",
    ),
    (
        Setting::switch("iptables-trace-logging"),
        "use `interceptor run --log`, which logs every verdict",
    ),
];

pub(super) const DRY_RUN: Setting = Setting::switch("dry-run")
    .short('n')
    .variables(&["DRY_RUN"])
    .help("Print the settings and the equivalent iptables rules, and change nothing");

pub(super) const SKIP_RULE_APPLY: Setting = Setting::switch("skip-rule-apply")
    .variables(&["SKIP_RULE_APPLY"])
    .help("Do not attach the pod");

pub(super) const RUN_VALIDATION: Setting = Setting::switch("run-validation")
    .variables(&["RUN_VALIDATION"])
    .help("Verify by a connection that the pod is captured; exit with 126 if it is not");

pub(super) const PROBE_PORT: Setting = Setting::value("iptables-probe-port", "PORT")
    .variables(&["IPTABLES_PROBE_PORT"])
    .default("15002")
    .help("Destination port of the validation connection");

pub(super) const PROBE_TIMEOUT: Setting = Setting::value("probe-timeout", "DURATION")
    .variables(&["PROBE_TIMEOUT"])
    .allows_hyphen()
    .default("5s")
    .help("Timeout of the validation, such as 5s or 500ms");

pub(super) const CLEANUP_ONLY: Setting = Setting::switch("cleanup-only")
    .variables(&["CLEANUP_ONLY"])
    .help("Detach the pod, and do nothing else");

/// The settings that control a run.
pub(crate) const CONTROLS: [Setting; 6] = [
    DRY_RUN,
    SKIP_RULE_APPLY,
    RUN_VALIDATION,
    PROBE_PORT,
    PROBE_TIMEOUT,
    CLEANUP_ONLY,
];

/// Values by the long names of their flags.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values(BTreeMap<&'static str, String>);

impl Values {
    pub(super) fn get(&self, setting: &Setting) -> Option<&str> {
        self.0.get(setting.long).map(String::as_str)
    }

    pub(super) fn read(
        matches: &ArgMatches,
        settings: impl IntoIterator<Item = &'static Setting>,
    ) -> Self {
        let given = with_flags(settings).filter_map(|setting| {
            let value = matches.get_one::<String>(setting.long)?;
            Some((setting.long, value.clone()))
        });
        Self(given.collect())
    }
}

fn with_flags(
    settings: impl IntoIterator<Item = &'static Setting>,
) -> impl Iterator<Item = &'static Setting> {
    settings
        .into_iter()
        .filter(|setting| !setting.long.is_empty())
}

/// Adds flags to a command.
pub(super) fn augment(
    command: Command,
    settings: impl IntoIterator<Item = &'static Setting>,
    heading: &'static str,
) -> Command {
    command.args(with_flags(settings).map(|setting| setting.argument().help_heading(heading)))
}

/// istio-iptables' flags, with its spelling. The value of a flag that is not set is read from the
/// environment, otherwise it is the default; a variable that is set but empty counts.
#[derive(Clone, Debug, Default)]
pub struct IstioFlags {
    pub(super) given: Values,
}

fn all() -> impl Iterator<Item = &'static Setting> {
    let rest = IGNORED.iter().chain(&REMOVED).map(|(setting, _)| setting);
    SETTINGS.iter().chain(rest)
}

impl Args for IstioFlags {
    fn augment_args(command: Command) -> Command {
        let command = augment(command, &SETTINGS, HEADING);
        let with_flag = IGNORED
            .iter()
            .filter(|(setting, _)| !setting.long.is_empty());
        let ignored = with_flag.map(|(setting, why)| {
            let help = match setting.variables {
                [] => (*why).to_owned(),
                variables => format!("{why} [env: {}]", variables.join(", ")),
            };
            setting
                .argument()
                .help(help)
                .help_heading(IGNORED_HEADING)
                .hide_short_help(true)
        });
        let removed = REMOVED.iter().map(|(setting, _)| {
            let argument = setting.argument().hide(true);
            // With or without a value: the error is about the flag.
            argument.num_args(0..=1).default_missing_value("")
        });
        command.args(ignored).args(removed)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for IstioFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Values::read(matches, all());
        Ok(Self { given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_used_once() {
        let mut names: Vec<_> = all()
            .chain(&CONTROLS)
            .flat_map(|setting| setting.variables.iter().chain([&setting.long]))
            .filter(|name| !name.is_empty())
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        IstioFlags::augment_args(Command::new("attach")).debug_assert();
    }

    /// Whether a table has a row that starts with these cells, `| a | b |`.
    fn has_row(document: &str, cells: &[String]) -> bool {
        let cells = cells.iter().map(|cell| match cell.as_str() {
            "" => " |".to_owned(),
            cell => format!(" {cell} |"),
        });
        let start = format!("|{}", cells.collect::<Vec<_>>().concat());
        document.lines().any(|line| line.starts_with(&start))
    }

    fn quoted(names: impl IntoIterator<Item = String>) -> String {
        let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    }

    #[test]
    fn the_documentation_lists_every_setting() {
        const DOCUMENT: &str = include_str!("../../../docs/settings.md");
        let flag = |setting: &Setting| match setting.long {
            "" => String::new(),
            long => format!("`--{long}`"),
        };
        let short = |setting: &Setting| quoted(setting.short.map(|short| format!("-{short}")));
        let variables =
            |setting: &Setting| quoted(setting.variables.iter().map(ToString::to_string));
        let default = |setting: &Setting| match setting.default {
            "" => "`''`".to_owned(),
            default => format!("`{default}`"),
        };
        for setting in SETTINGS.iter().chain(&CONTROLS) {
            let mut cells = vec![flag(setting), short(setting), variables(setting)];
            // The defaults of these depend on other settings.
            if !["proxy-uid", "proxy-gid"].contains(&setting.long) {
                cells.push(default(setting));
            }
            assert!(has_row(DOCUMENT, &cells), "{cells:?}");
        }
        for (setting, _) in &IGNORED {
            let cells = [flag(setting), variables(setting), default(setting)];
            assert!(has_row(DOCUMENT, &cells), "{cells:?}");
        }
        for (setting, _) in &REMOVED {
            assert!(DOCUMENT.contains(&flag(setting)), "{setting:?}");
        }
    }
}
