//! A pod's settings: from its annotations and containers, as istio-cni reads them
//! (`cni/pkg/plugin/sidecar_redirect.go`), or from the arguments of its istio-init container.

use clap::{Args as _, Command, FromArgMatches as _};

use super::{
    annotation_values::{ANNOTATIONS, STRICT},
    pod::{Container, Pod},
    proxy_config::ProxyConfig,
};
use crate::settings::{
    IstioFlags, SettingError, Settings, Strict, control::ControlFlags, parse_bool, strict,
};

/// How a pod is to be captured, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturePlan {
    /// The settings to capture it with.
    pub settings: Settings,
    /// Settings of the pod that have no effect, and why.
    pub notes: Vec<String>,
    /// When the capture starts.
    pub from: CaptureFrom,
}

/// When a pod's capture starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureFrom {
    /// Before its first container starts.
    Start,
    /// When its istio-init container runs: earlier init containers run uncaptured, as with iptables.
    IstioInit,
}

const MODE: &str = "sidecar.istio.io/interceptionMode";

/// The proxy's UID and GID if its container sets none, or root.
const PROXY_ID: i64 = 1337;

/// The pod's interception mode: REDIRECT, TPROXY or NONE, unvalidated.
#[must_use]
pub fn mode(pod: &Pod) -> String {
    let annotation = pod.annotations.get(MODE).cloned();
    annotation
        .or_else(|| ProxyConfig::of(pod).ok()?.interception_mode)
        .unwrap_or_else(|| "REDIRECT".to_owned())
}

/// The plan for an injected pod with the container `proxy`.
pub fn of_annotations(pod: &Pod, proxy: &Container) -> Result<CapturePlan, String> {
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
            arguments.push(annotation.argument(value)?);
        }
    }
    let owner = |id: Option<i64>| id.filter(|id| *id != 0).unwrap_or(PROXY_ID).to_string();
    arguments.push(flag("proxy-uid", &owner(proxy.run_as_user)));
    arguments.push(flag("proxy-gid", &owner(proxy.run_as_group)));
    let (config, note) = match ProxyConfig::of(pod) {
        Ok(config) => (config, None),
        Err(note) => (ProxyConfig::default(), Some(note)),
    };
    // The injector copies the ProxyConfig's metadata into the container's variables.
    let is_set = |variable| {
        let own = proxy.variables.get(variable);
        let value = own.or_else(|| config.proxy_metadata.get(variable));
        value.is_some_and(|value| parse_bool(value) == Ok(true))
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
    let mut plan = parse(&arguments, &|_| None, CaptureFrom::Start, named_in_pod)?;
    plan.notes.extend(note);
    Ok(plan)
}

fn flag(name: &str, value: &str) -> String {
    format!("--{name}={value}")
}

/// The name of a setting in the pod, for errors. (Annotations are checked before.)
fn named_in_pod(setting: &str) -> String {
    let member = match setting {
        "--proxy-uid" => "runAsUser",
        "--proxy-gid" => "runAsGroup",
        _ => return setting.to_owned(),
    };
    format!("istio-proxy's securityContext.{member}")
}

/// The plan for a pod with our istio-init container, from its arguments and variables.
pub fn of_init_container(init: &Container) -> Result<CapturePlan, String> {
    let words = init.command.iter().chain(&init.arguments);
    let arguments: Vec<_> = words
        .skip_while(|word| !word.starts_with('-'))
        .cloned()
        .collect();
    let variables = |name: &str| init.variables.get(name).cloned();
    parse(&arguments, &variables, CaptureFrom::IstioInit, |setting| {
        format!("istio-init's {setting}")
    })
}

/// The plan with the strict mode of the pod's annotation, or of its istio-init, or the agent's default.
pub fn with_strict_mode(
    mut plan: CapturePlan,
    pod: &Pod,
    default: Strict,
) -> Result<CapturePlan, String> {
    let reroutes = !plan.settings.rerouted_interfaces.is_empty();
    let Some(value) = pod.annotations.get(STRICT) else {
        if reroutes && !default.is_off() {
            plan.notes.push(format!(
                "the agent's strict mode ({}) has no effect on this pod, which reroutes virtual \
                 interfaces",
                default.name()
            ));
        } else if plan.settings.strict.is_off() {
            plan.settings.strict = default;
        }
        return Ok(plan);
    };
    let annotated = strict::parse(value).and_then(|strict| match strict {
        Strict::Tcp | Strict::All if reroutes => {
            Err("a pod that reroutes virtual interfaces does not support strict mode".to_owned())
        }
        strict => Ok(strict),
    });
    plan.settings.strict =
        annotated.map_err(|problem| format!("annotation {STRICT} {value:?}: {problem}"))?;
    Ok(plan)
}

fn parse(
    arguments: &[String],
    variables: &dyn Fn(&str) -> Option<String>,
    from: CaptureFrom,
    name: impl Fn(&str) -> String,
) -> Result<CapturePlan, String> {
    let command = Command::new("istio-iptables").no_binary_name(true);
    let command = ControlFlags::augment_args(IstioFlags::augment_args(command))
        .args_override_self(true)
        .disable_help_flag(true);
    let flags = command
        .try_get_matches_from(arguments)
        .and_then(|matches| IstioFlags::from_arg_matches(&matches))
        .map_err(|error| format!("invalid istio-init arguments: {error}"))?;
    let parsed = Settings::from_flags_and(&flags, variables, None).map_err(|error| {
        let setting = name(&error.setting);
        SettingError { setting, ..error }.to_string()
    })?;
    Ok(CapturePlan {
        settings: parsed.settings,
        notes: parsed.notes,
        from,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        agent::fixtures::{injected, pod, with_istio_init},
        settings::{DnsCapture, Mode, tests::settings},
    };

    fn plan(annotations: &[(&str, &str)], proxy: &Value) -> Result<CapturePlan, String> {
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
        let plan = plan(annotations, proxy).unwrap();
        assert_eq!(plan.settings, settings(flags, &[]).unwrap());
        assert_eq!(plan.from, CaptureFrom::Start);
    }

    /// The settings that istio-cni uses for a pod without annotations.
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
    fn the_defaults_are_those_of_istio_cni() {
        check(&[], &json!({}), &DEFAULTS);
        // The proxy does not run as root.
        let root = json!({"securityContext": {"runAsUser": 0, "runAsGroup": 0}});
        check(&[], &root, &DEFAULTS);
    }

    #[test]
    fn every_annotation_has_an_effect() {
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
    fn inbound_port_exclusions_add_and_outbound_ones_replace() {
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
    fn the_newer_interfaces_annotation_wins() {
        let both = [
            ("traffic.sidecar.istio.io/kubevirtInterfaces", "old0"),
            ("istio.io/reroute-virtual-interfaces", "new0"),
        ];
        let rerouted = |annotations| {
            let plan = plan(annotations, &json!({})).unwrap();
            plan.settings.rerouted_interfaces[0].to_string()
        };
        assert_eq!(rerouted(&both), "new0");
        assert_eq!(rerouted(&both[..1]), "old0");
    }

    #[test]
    fn a_variable_with_value_from_is_not_set() {
        let source = json!({"fieldRef": {"fieldPath": "metadata.name"}});
        let proxy = json!({"env": [{"name": "ISTIO_META_DNS_CAPTURE", "valueFrom": source}]});
        check(&[], &proxy, &DEFAULTS);
    }

    #[test]
    fn an_error_names_the_annotation_and_its_value() {
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
            let problem = plan(&[(annotation, value)], &json!({})).unwrap_err();
            assert!(problem.contains(annotation), "{problem}");
            assert!(problem.contains(value), "{problem}");
        }
    }

    #[test]
    fn errors_say_what_is_allowed() {
        let cases = [
            (
                "traffic.sidecar.istio.io/includeInboundPorts",
                "80x",
                "annotation traffic.sidecar.istio.io/includeInboundPorts \"80x\": \"80x\" is not a \
                 port: give '*', or port numbers from 0 to 65535, without leading zeros, separated by \
                 commas; annotations do not accept ranges",
            ),
            (
                "traffic.sidecar.istio.io/excludeOutboundIPRanges",
                "10.0.0.0/8,*",
                "annotation traffic.sidecar.istio.io/excludeOutboundIPRanges \"10.0.0.0/8,*\": \
                 \"*\" is \
                 not a CIDR: give CIDRs such as 10.0.0.0/16 or fd00::/8, without leading zeros, \
                 separated by commas without spaces",
            ),
        ];
        for (annotation, value, expected) in cases {
            let problem = plan(&[(annotation, value)], &json!({})).unwrap_err();
            assert_eq!(problem, expected);
        }
        let odd = Container {
            arguments: vec!["-b".to_owned(), "80x".to_owned()],
            ..Container::default()
        };
        let problem = of_init_container(&odd).unwrap_err();
        let expected = "istio-init's --istio-inbound-ports \"80x\": \"80x\" is not a port: ";
        assert!(problem.starts_with(expected), "{problem}");
        let owner = json!({"securityContext": {"runAsUser": -5}});
        let problem = plan(&[], &owner).unwrap_err();
        let expected = "istio-proxy's securityContext.runAsUser \"-5\": ";
        assert!(problem.starts_with(expected), "{problem}");
    }

    proptest! {
        /// The flag accepts the annotation's value, or the error names the annotation and lists only
        /// what the annotation accepts, not what only the flag accepts.
        #[test]
        fn an_error_is_about_the_annotation(
            annotation in prop::sample::select(&ANNOTATIONS[..]),
            value in prop_oneof![
                "[0-9a-z:*,+ \t./-]{0,12}",
                "([0-9]{1,3}\\.){3}[0-9]{1,3}/[0-9]{1,2},?",
                "[0-9]{1,6}([,:] ?[0-9]{1,6}){0,2}",
                "[a-z]{1,17}[0-9+]?,?",
                "\\PC{0,8}",
            ],
        ) {
            if let Err(problem) = plan(&[(annotation.name, &value)], &json!({})) {
                let start = format!("annotation {} {value:?}: ", annotation.name);
                prop_assert!(problem.starts_with(&start), "{}", problem);
                for offered in ["8000:8010", "eth+", "--", "-i ", "Some("] {
                    let message = &problem[start.len()..];
                    prop_assert!(value.contains(offered) || !message.contains(offered), "{}", problem);
                }
            }
        }
    }

    #[test]
    fn our_istio_init_sets_the_settings_by_its_arguments() {
        let pod = pod(with_istio_init("interceptor"));
        let plan = of_init_container(pod.container("istio-init").unwrap()).unwrap();
        let flags = ["-i", "*", "-b", "*", "-d", "15090,15021,15020"];
        assert_eq!(plan.settings, settings(&flags, &[]).unwrap());
        assert_eq!(plan.from, CaptureFrom::IstioInit);
        let odd = Container {
            arguments: vec!["-b".to_owned(), "http".to_owned()],
            ..Container::default()
        };
        let problem = of_init_container(&odd).unwrap_err();
        assert!(problem.contains("istio-init"), "{problem}");
    }

    #[test]
    fn boolean_variables_are_parsed_as_in_go() {
        let with = |name: &str, value: &str| {
            let proxy = json!({"env": [{"name": name, "value": value}]});
            plan(&[], &proxy).unwrap().settings
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
        // Variables of istio-init, which istio-cni does not read.
        for (name, value) in [
            ("DROP_INVALID", "true"),
            ("ISTIO_OUTBOUND_OWNER_GROUPS", "7"),
            ("ISTIO_INBOUND_PORTS", "7"),
        ] {
            let defaults = settings(&DEFAULTS, &[]).unwrap();
            assert_eq!(with(name, value), defaults, "{name}");
        }
    }

    const CONFIG: &str = "proxy.istio.io/config";

    #[test]
    fn injected_values_win_over_the_proxy_config() {
        let yaml = "# of the team\nconcurrency: 2\ninterceptionMode: TPROXY\nproxyMetadata:\n  \
                    ISTIO_META_DNS_CAPTURE: \"true\"\n  ISTIO_DUAL_STACK: 'true'\n";
        let found = plan(&[(CONFIG, yaml)], &json!({})).unwrap().settings;
        assert_eq!((found.mode, found.dns), (Mode::Tproxy, DnsCapture::All));
        assert!(found.dual_stack);
        let json = r#"{"proxyMetadata": {"INVALID_DROP": "true"}}"#;
        let found = plan(&[(CONFIG, json)], &json!({})).unwrap().settings;
        assert!(found.drop_invalid);
        let annotations = [(CONFIG, yaml), (MODE, "REDIRECT")];
        let proxy = json!({"env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": ""}]});
        let found = plan(&annotations, &proxy).unwrap().settings;
        assert_eq!((found.mode, found.dns), (Mode::Redirect, DnsCapture::Off));
    }

    #[test]
    fn an_invalid_proxy_config_adds_a_note_and_is_ignored() {
        for bad in ["{", "proxyMetadata: 7", "- a"] {
            let plan = plan(&[(CONFIG, bad)], &json!({})).unwrap();
            assert_eq!(plan.settings, settings(&DEFAULTS, &[]).unwrap(), "{bad}");
            assert_eq!(plan.notes.len(), 1, "{:?}", plan.notes);
            assert!(plan.notes[0].contains(CONFIG), "{:?}", plan.notes);
        }
        assert!(plan(&[(CONFIG, " ")], &json!({})).unwrap().notes.is_empty());
    }

    #[test]
    fn the_documentation_lists_every_annotation() {
        const DOCUMENT: &str = include_str!("../../../../docs/settings.md");
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
