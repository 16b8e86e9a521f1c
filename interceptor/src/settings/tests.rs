//! Every setting is parsed as in istio-iptables.

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

/// The settings of these arguments and variables.
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
fn a_flag_overrides_its_variable_and_empty_variables_count() {
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
fn gids_are_the_uids_unless_set() {
    let same = settings(&["-u", "3,4"], &[]).unwrap();
    assert_eq!(same.proxy_gids.as_slice(), [3, 4]);
    let other = settings(&["-u", "3,4", "-g", "1"], &[]).unwrap();
    assert_eq!(other.proxy_gids.as_slice(), [1]);
}

#[test]
fn the_later_variable_wins_and_invalid_ones_are_ignored() {
    let both = [("DUAL_STACK", "true"), ("ISTIO_DUAL_STACK", "false")];
    assert!(!settings(&[], &both).unwrap().dual_stack);
    let bad = [("DUAL_STACK", "true"), ("ISTIO_DUAL_STACK", "perhaps")];
    assert!(settings(&[], &bad).unwrap().dual_stack);
    assert!(settings(&["--dual-stack"], &[]).unwrap().dual_stack);
    assert!(!settings(&["--dual-stack=false"], &both).unwrap().dual_stack);
    assert!(settings(&["--dual-stack=perhaps"], &[]).is_err());
}

#[test]
fn any_mode_except_tproxy_is_redirect() {
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
fn owner_groups_are_excluded_only_if_all_are_included() {
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
fn without_a_resolv_conf_dns_is_captured_for_all_servers() {
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
fn settings_without_effect_are_reported() {
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
fn the_ignored_kind_of_iptables_is_validated() {
    for good in ["", "legacy", "nft"] {
        assert!(settings(&["--force-iptables-binary", good], &[]).is_ok());
    }
    let error = settings(&[], &[("FORCE_IPTABLES_BINARY", "xtables")]).unwrap_err();
    assert!(error.to_string().contains("legacy and nft"), "{error}");
}

#[test]
fn flags_of_older_releases_are_refused_with_their_replacement() {
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

/// A setting, and a value that some settings accept and others do not.
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
    /// The result is all settings, or one error with the name of a setting.
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

    /// A flag overrides its variables, whatever their values.
    #[test]
    fn a_flag_wins((setting, value) in any_given(), junk in "\\PC{0,8}") {
        let flag = setting.name();
        if !flag.starts_with("--") {
            return Ok(());
        }
        let argument = format!("{flag}={value}");
        let variables: Vec<_> = setting
            .variable_names()
            .iter()
            .map(|name| (*name, junk.as_str()))
            .collect();
        // (A GID that is not set is the UID.)
        prop_assert_eq!(parsed(&[&argument], &variables), parsed(&[&argument], &[]));
    }
}
