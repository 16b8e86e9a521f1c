//! How a pod is captured: its settings, as istio-cni takes them from annotations and containers
//! (`cni/pkg/plugin/sidecar_redirect.go`) or as its own istio-init's arguments say.

use std::borrow::Cow;

use clap::{Args as _, Command, FromArgMatches as _};

use super::{
    pod::{Container, Pod},
    proxy_config::ProxyConfig,
    selection::parse_bool,
};
use crate::settings::{IstioFlags, Settings, control::ControlFlags};

/// How a pod is to be captured, and from when on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// What is captured.
    pub settings: Settings,
    /// Which of what the pod asks for has no effect, and why.
    pub notes: Vec<String>,
    /// From when on.
    pub from: From,
}

/// From when on a pod is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Before its first container starts.
    Start,
    /// When its istio-init container runs: init containers before it have the network to
    /// themselves, as always.
    IstioInit,
}

/// An annotation, the flag that it stands for, and what istio-cni takes in its absence.
struct Annotation {
    name: &'static str,
    flag: &'static str,
    default: &'static str,
    /// What istio-cni refuses of what the flag takes.
    check: fn(&str) -> Result<(), &'static str>,
}

const fn annotation(
    name: &'static str,
    flag: &'static str,
    default: &'static str,
    check: fn(&str) -> Result<(), &'static str>,
) -> Annotation {
    Annotation {
        name,
        flag,
        default,
        check,
    }
}

/// The annotations in which a pod says what is captured.
const ANNOTATIONS: [Annotation; 9] = [
    annotation(
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
        "istio-service-cidr",
        "*",
        unspaced_prefixes,
    ),
    annotation(
        "traffic.sidecar.istio.io/excludeOutboundIPRanges",
        "istio-service-exclude-cidr",
        "",
        unspaced_prefixes,
    ),
    annotation(
        "traffic.sidecar.istio.io/includeInboundPorts",
        "istio-inbound-ports",
        "*",
        single_ports,
    ),
    annotation(
        EXCLUDE_INBOUND_PORTS,
        "istio-local-exclude-ports",
        "15020",
        single_ports,
    ),
    annotation(
        "traffic.sidecar.istio.io/includeOutboundPorts",
        "istio-outbound-ports",
        "",
        single_ports,
    ),
    annotation(
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "istio-local-outbound-ports-exclude",
        "15020",
        single_ports,
    ),
    annotation(
        "traffic.sidecar.istio.io/excludeInterfaces",
        "istio-exclude-interfaces",
        "",
        interface_names,
    ),
    // The name before the next one's.
    annotation(
        "traffic.sidecar.istio.io/kubevirtInterfaces",
        "kube-virt-interfaces",
        "",
        interface_names,
    ),
    annotation(
        "istio.io/reroute-virtual-interfaces",
        "kube-virt-interfaces",
        "",
        interface_names,
    ),
];

const EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";

/// The proxy's own ports, where nothing inbound is captured whatever the annotation says.
const PROXY_PORTS: [&str; 3] = ["15020", "15021", "15090"];

const MODE: &str = "sidecar.istio.io/interceptionMode";

/// The proxy's owner if its container does not say, or says root.
const PROXY_ID: i64 = 1337;

/// How the pod says that inbound connections are taken to the proxy.
#[must_use]
pub fn mode(pod: &Pod) -> String {
    let annotation = pod.annotations.get(MODE).cloned();
    annotation
        .or_else(|| ProxyConfig::of(pod).ok()?.interception_mode)
        .unwrap_or_else(|| "REDIRECT".to_owned())
}

fn unspaced_prefixes(list: &str) -> Result<(), &'static str> {
    if list.contains(char::is_whitespace) {
        return Err("give CIDRs, separated by commas without spaces");
    }
    Ok(())
}

fn single_ports(list: &str) -> Result<(), &'static str> {
    if list.contains(':') {
        return Err("annotations have no ranges: give port numbers, separated by commas");
    }
    Ok(())
}

/// istio-cni's pattern of a name: nothing that means more to a rule than itself, such as `eth+`.
fn interface_names(list: &str) -> Result<(), &'static str> {
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "_.-".contains(character))
    };
    if list.is_empty() || list.split(',').map(str::trim).all(is_name) {
        return Ok(());
    }
    Err(
        "give names of interfaces, separated by commas: a letter, then letters, digits, '_', '.' \
         or '-', up to 15 in all",
    )
}

/// How an injected pod is captured, whose proxy is `proxy`.
pub fn of_annotations(pod: &Pod, proxy: &Container) -> Result<Intent, String> {
    let mode = mode(pod);
    if !["REDIRECT", "TPROXY"].contains(&mode.as_str()) {
        return Err(format!(
            "annotation {MODE} {mode:?}: give REDIRECT, TPROXY or NONE"
        ));
    }
    let mut arguments = vec![flag("istio-inbound-interception-mode", &mode)];
    for annotation in &ANNOTATIONS {
        let value = pod.annotations.get(annotation.name);
        if value.is_some() || !annotation.default.is_empty() {
            let value = value.map_or(annotation.default, String::as_str);
            (annotation.check)(value).map_err(|problem| {
                format!("annotation {} {value:?}: {problem}", annotation.name)
            })?;
            arguments.push(flag(annotation.flag, &complete(annotation, value)));
        }
    }
    let owner = |id: Option<i64>| id.filter(|id| *id != 0).unwrap_or(PROXY_ID).to_string();
    arguments.push(flag("proxy-uid", &owner(proxy.run_as_user)));
    arguments.push(flag("proxy-gid", &owner(proxy.run_as_group)));
    let (config, note) = match ProxyConfig::of(pod) {
        Ok(config) => (config, None),
        Err(note) => (ProxyConfig::default(), Some(note)),
    };
    // The injector has put all of the ProxyConfig's metadata there already.
    let is_set = |variable| {
        let own = proxy.variables.get(variable);
        let value = own.or_else(|| config.proxy_metadata.get(variable));
        value.and_then(|value| parse_bool(value)) == Some(true)
    };
    if is_set("ISTIO_META_DNS_CAPTURE") {
        arguments.extend(["--redirect-dns", "--capture-all-dns"].map(str::to_owned));
    }
    if is_set("ISTIO_DUAL_STACK") {
        arguments.push("--dual-stack".to_owned());
    }
    if is_set("INVALID_DROP") {
        arguments.push("--drop-invalid".to_owned());
    }
    let mut intent = parse(&arguments, &|_| None, From::Start, named_by_annotation)?;
    intent.notes.extend(note);
    Ok(intent)
}

/// Both of what the annotation says and of what istio-cni adds to it, each port once.
fn complete<'a>(annotation: &Annotation, value: &'a str) -> Cow<'a, str> {
    if annotation.name != EXCLUDE_INBOUND_PORTS {
        return value.into();
    }
    let mut ports: Vec<&str> = Vec::new();
    for port in value.split(',').chain(PROXY_PORTS).map(str::trim) {
        if !port.is_empty() && !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports.join(",").into()
}

fn flag(name: &str, value: &str) -> String {
    format!("--{name}={value}")
}

/// The annotation that stands for a flag, to be named in the flag's place.
fn named_by_annotation(setting: &str) -> String {
    let named = ANNOTATIONS
        .iter()
        .filter(|annotation| setting.strip_prefix("--") == Some(annotation.flag))
        .map(|annotation| annotation.name);
    match named.collect::<Vec<_>>()[..] {
        [] => setting.to_owned(),
        ref annotations => format!("annotation {}", annotations.join(" or ")),
    }
}

/// How a pod is captured whose istio-init container is ours: by its arguments and variables.
pub fn of_init_container(init: &Container) -> Result<Intent, String> {
    let words = init.command.iter().chain(&init.arguments);
    let arguments: Vec<_> = words
        .skip_while(|word| !word.starts_with('-'))
        .cloned()
        .collect();
    let variables = |name: &str| init.variables.get(name).cloned();
    parse(&arguments, &variables, From::IstioInit, |setting| {
        format!("istio-init's {setting}")
    })
}

fn parse(
    arguments: &[String],
    variables: &dyn Fn(&str) -> Option<String>,
    from: From,
    name: impl Fn(&str) -> String,
) -> Result<Intent, String> {
    let command = Command::new("istio-iptables").no_binary_name(true);
    let command = ControlFlags::augment_args(IstioFlags::augment_args(command))
        .args_override_self(true)
        .disable_help_flag(true);
    let flags = command
        .try_get_matches_from(arguments)
        .and_then(|matches| IstioFlags::from_arg_matches(&matches))
        .map_err(|error| format!("its istio-init's arguments are not valid: {error}"))?;
    let parsed = Settings::from_flags_and(&flags, variables, None).map_err(|error| {
        format!(
            "{} {:?}: {}",
            name(&error.setting),
            error.value,
            error.problem
        )
    })?;
    Ok(Intent {
        settings: parsed.settings,
        notes: parsed.notes,
        from,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::fixtures::{injected, pod, with_istio_init},
        *,
    };
    use crate::settings::{DnsCapture, Mode, tests::settings};

    fn intent(annotations: &[(&str, &str)], proxy: &Value) -> Result<Intent, String> {
        let mut manifest = injected();
        let status = json!({"sidecar.istio.io/status": "{}"});
        manifest["metadata"]["annotations"] = status;
        for (name, value) in annotations {
            manifest["metadata"]["annotations"][*name] = json!(value);
        }
        for (member, value) in proxy.as_object().unwrap() {
            manifest["spec"]["containers"][1][member] = value.clone();
        }
        let pod = pod(manifest);
        of_annotations(&pod, pod.container("istio-proxy").unwrap())
    }

    #[track_caller]
    fn check(annotations: &[(&str, &str)], proxy: &Value, flags: &[&str]) {
        let intent = intent(annotations, proxy).unwrap();
        assert_eq!(intent.settings, settings(flags, &[]).unwrap());
        assert_eq!(intent.from, From::Start);
    }

    /// The rules that istio-cni programs for a pod without annotations.
    const DEFAULTS: [&str; 12] = [
        "-m",
        "REDIRECT",
        "-i",
        "*",
        "-b",
        "*",
        "-d",
        "15020,15021,15090",
        "-o",
        "15020",
        "-u",
        "1337",
    ];

    #[test]
    fn the_defaults_are_istio_cnis() {
        check(&[], &json!({}), &DEFAULTS);
        // Root is nobody's proxy.
        let root = json!({"securityContext": {"runAsUser": 0, "runAsGroup": 0}});
        check(&[], &root, &DEFAULTS);
    }

    #[test]
    fn every_annotation_is_heeded() {
        let annotations = [
            ("sidecar.istio.io/interceptionMode", "TPROXY"),
            (
                "traffic.sidecar.istio.io/includeOutboundIPRanges",
                "10.0.0.0/8,fd00::/8",
            ),
            (
                "traffic.sidecar.istio.io/excludeOutboundIPRanges",
                "10.1.0.0/16",
            ),
            ("traffic.sidecar.istio.io/includeInboundPorts", "80,443"),
            ("traffic.sidecar.istio.io/includeOutboundPorts", "3306"),
            ("traffic.sidecar.istio.io/excludeOutboundPorts", "25"),
            ("traffic.sidecar.istio.io/excludeInterfaces", "net1"),
            ("istio.io/reroute-virtual-interfaces", "tap0"),
        ];
        let flags = [
            "-m",
            "TPROXY",
            "-i",
            "10.0.0.0/8,fd00::/8",
            "-x",
            "10.1.0.0/16",
            "-b",
            "80,443",
            "-d",
            "15020,15021,15090",
            "-q",
            "3306",
            "-o",
            "25",
            "-c",
            "net1",
            "-k",
            "tap0",
            "-u",
            "5",
            "-g",
            "6",
            "--redirect-dns",
            "--capture-all-dns",
            "--dual-stack",
        ];
        let proxy = json!({
            "securityContext": {"runAsUser": 5, "runAsGroup": 6},
            "env": [
                {"name": "ISTIO_META_DNS_CAPTURE", "value": "true"},
                {"name": "ISTIO_DUAL_STACK", "value": "1"}
            ]
        });
        check(&annotations, &proxy, &flags);
    }

    #[test]
    fn excluded_inbound_ports_are_added_to_and_outbound_ones_replaced() {
        let annotations = [
            (
                "traffic.sidecar.istio.io/excludeInboundPorts",
                "9090, 15021",
            ),
            ("traffic.sidecar.istio.io/excludeOutboundPorts", ""),
        ];
        let mut flags = DEFAULTS;
        (flags[7], flags[9]) = ("9090,15021,15020,15090", "");
        check(&annotations, &json!({}), &flags);
    }

    #[test]
    fn the_newer_name_of_the_interfaces_wins() {
        let both = [
            ("traffic.sidecar.istio.io/kubevirtInterfaces", "old0"),
            ("istio.io/reroute-virtual-interfaces", "new0"),
        ];
        let rerouted = |annotations| {
            let intent = intent(annotations, &json!({})).unwrap();
            intent.settings.rerouted_interfaces[0].to_string()
        };
        assert_eq!(rerouted(&both), "new0");
        assert_eq!(rerouted(&both[..1]), "old0");
    }

    #[test]
    fn a_variable_whose_value_is_elsewhere_is_not_set() {
        let source = json!({"fieldRef": {"fieldPath": "metadata.name"}});
        let proxy = json!({"env": [{"name": "ISTIO_META_DNS_CAPTURE", "valueFrom": source}]});
        check(&[], &proxy, &DEFAULTS);
    }

    #[test]
    fn a_bad_value_is_named_by_its_annotation() {
        for (annotation, value) in [
            (
                "traffic.sidecar.istio.io/includeOutboundIPRanges",
                "10.0.0.0",
            ),
            ("traffic.sidecar.istio.io/excludeInboundPorts", "http"),
            (
                "traffic.sidecar.istio.io/excludeInterfaces",
                "a-name-that-is-too-long",
            ),
            ("sidecar.istio.io/interceptionMode", "tproxy"),
        ] {
            let problem = intent(&[(annotation, value)], &json!({})).unwrap_err();
            assert!(problem.contains(annotation), "{problem}");
            assert!(problem.contains(value), "{problem}");
        }
    }

    #[test]
    fn our_own_istio_init_is_taken_at_its_word() {
        let pod = pod(with_istio_init("interceptor"));
        let intent = of_init_container(pod.container("istio-init").unwrap()).unwrap();
        let flags = ["-i", "*", "-b", "*", "-d", "15090,15021,15020"];
        assert_eq!(intent.settings, settings(&flags, &[]).unwrap());
        assert_eq!(intent.from, From::IstioInit);
        let odd = Container {
            arguments: vec!["-b".to_owned(), "http".to_owned()],
            ..Container::default()
        };
        let problem = of_init_container(&odd).unwrap_err();
        assert!(problem.contains("istio-init"), "{problem}");
    }

    #[test]
    fn variables_are_booleans_as_go_reads_them() {
        let with = |name: &str, value: &str| {
            let proxy = json!({"env": [{"name": name, "value": value}]});
            intent(&[], &proxy).unwrap().settings
        };
        for (value, is_on) in [
            ("T", true),
            ("1", true),
            ("0", false),
            ("yes", false),
            ("", false),
        ] {
            let dns = if is_on {
                DnsCapture::All
            } else {
                DnsCapture::Off
            };
            assert_eq!(with("ISTIO_META_DNS_CAPTURE", value).dns, dns, "{value}");
            assert_eq!(with("ISTIO_DUAL_STACK", value).dual_stack, is_on, "{value}");
            assert_eq!(with("INVALID_DROP", value).drop_invalid, is_on, "{value}");
        }
        // These are istio-init's.
        for (name, value) in [
            ("DROP_INVALID", "true"),
            ("ISTIO_OUTBOUND_OWNER_GROUPS", "7"),
            ("ISTIO_INBOUND_PORTS", "7"),
        ] {
            let defaults = settings(&DEFAULTS, &[]).unwrap();
            assert_eq!(with(name, value), defaults, "{name}");
        }
    }

    #[test]
    fn what_istio_cni_refuses_of_what_the_flags_take_is_refused() {
        let cases = [
            (
                "traffic.sidecar.istio.io/includeOutboundIPRanges",
                "10.0.0.0/8, 11.0.0.0/8",
                "without spaces",
            ),
            (
                "traffic.sidecar.istio.io/includeInboundPorts",
                "80:90",
                "no ranges",
            ),
            (
                "traffic.sidecar.istio.io/excludeInboundPorts",
                "1:65535",
                "no ranges",
            ),
            (
                "traffic.sidecar.istio.io/includeOutboundPorts",
                ":9",
                "no ranges",
            ),
            (
                "traffic.sidecar.istio.io/excludeOutboundPorts",
                "1:",
                "no ranges",
            ),
            (
                "traffic.sidecar.istio.io/excludeInterfaces",
                "eth+",
                "letter",
            ),
            (
                "traffic.sidecar.istio.io/excludeInterfaces",
                "eth0 -j ACCEPT",
                "letter",
            ),
            (
                "traffic.sidecar.istio.io/kubevirtInterfaces",
                "0eth",
                "letter",
            ),
            (
                "istio.io/reroute-virtual-interfaces",
                "eth0,,eth1",
                "letter",
            ),
        ];
        for (name, value, allowed) in cases {
            let problem = intent(&[(name, value)], &json!({})).unwrap_err();
            let words = [name, value, allowed];
            assert!(words.iter().all(|word| problem.contains(word)), "{problem}");
        }
    }

    const CONFIG: &str = "proxy.istio.io/config";

    #[test]
    fn the_proxy_config_counts_where_nothing_else_says_otherwise() {
        let yaml = "# of the team\nconcurrency: 2\ninterceptionMode: TPROXY\nproxyMetadata:\n  \
                    ISTIO_META_DNS_CAPTURE: \"true\"\n  ISTIO_DUAL_STACK: 'true'\n";
        let found = intent(&[(CONFIG, yaml)], &json!({})).unwrap().settings;
        assert_eq!((found.mode, found.dns), (Mode::Tproxy, DnsCapture::All));
        assert!(found.dual_stack);
        let json = r#"{"proxyMetadata": {"INVALID_DROP": "true"}}"#;
        let found = intent(&[(CONFIG, json)], &json!({})).unwrap().settings;
        assert!(found.drop_invalid);
        // What was injected wins.
        let annotations = [(CONFIG, yaml), (MODE, "REDIRECT")];
        let proxy = json!({"env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": ""}]});
        let found = intent(&annotations, &proxy).unwrap().settings;
        assert_eq!((found.mode, found.dns), (Mode::Redirect, DnsCapture::Off));
    }

    #[test]
    fn a_proxy_config_that_cannot_be_read_is_told_and_keeps_no_pod_from_running() {
        for bad in ["{", "proxyMetadata: 7", "- a"] {
            let intent = intent(&[(CONFIG, bad)], &json!({})).unwrap();
            assert_eq!(intent.settings, settings(&DEFAULTS, &[]).unwrap(), "{bad}");
            assert_eq!(intent.notes.len(), 1, "{:?}", intent.notes);
            assert!(intent.notes[0].contains(CONFIG), "{:?}", intent.notes);
        }
        assert!(
            intent(&[(CONFIG, " ")], &json!({}))
                .unwrap()
                .notes
                .is_empty()
        );
    }

    #[test]
    fn the_documentation_lists_every_annotation() {
        const DOCUMENT: &str = include_str!("../../../docs/settings.md");
        for annotation in &ANNOTATIONS {
            let default = match annotation.default {
                "" => "''",
                default => default,
            };
            let row = format!(
                "| `{}` | `--{}` | `{default}` |",
                annotation.name, annotation.flag
            );
            assert!(DOCUMENT.lines().any(|line| line.starts_with(&row)), "{row}");
        }
        for name in [
            MODE,
            CONFIG,
            "ISTIO_META_DNS_CAPTURE",
            "ISTIO_DUAL_STACK",
            "INVALID_DROP",
        ] {
            assert!(DOCUMENT.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
