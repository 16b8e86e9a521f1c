//! The cases of Istio's `TestInjection`: which settings belong to which golden file.

use std::collections::BTreeSet;

/// An input, its golden file and the settings between them.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) input: String,
    pub(super) want: String,
    /// Settings as for `istioctl install --set`.
    pub(super) set: &'static [&'static str],
    /// A file of the corpus with an `IstioOperator`.
    pub(super) operator: Option<&'static str>,
    /// Changes of the mesh configuration, in YAML.
    pub(super) mesh: &'static str,
    /// Whether the proxy is a native sidecar; none for the release's default.
    pub(super) native: Option<bool>,
    pub(super) openshift: bool,
}

/// Inputs that Istio refuses, and the annotation that we name.
pub(super) const REFUSED: &[(&str, &str)] = &[
    (
        "traffic-annotations-bad-includeipranges.yaml",
        "includeOutboundIPRanges",
    ),
    (
        "traffic-annotations-bad-excludeipranges.yaml",
        "excludeOutboundIPRanges",
    ),
    (
        "traffic-annotations-bad-includeinboundports.yaml",
        "includeInboundPorts",
    ),
    (
        "traffic-annotations-bad-excludeinboundports.yaml",
        "excludeInboundPorts",
    ),
    (
        "traffic-annotations-bad-excludeoutboundports.yaml",
        "excludeOutboundPorts",
    ),
];

impl Case {
    pub(super) fn new(input: &str, want: &str) -> Self {
        Self {
            input: input.to_owned(),
            want: want.to_owned(),
            set: &[],
            operator: None,
            mesh: "",
            native: None,
            openshift: false,
        }
    }
}

const CNI: &[&str] = &["components.cni.enabled=true"];
const MULTUS: &[&str] = &["components.cni.enabled=true", "values.cni.provider=multus"];
const HOLD: &[&str] = &["values.global.proxy.holdApplicationUntilProxyStarts=true"];
const STATUS: &[&str] = &[
    "values.global.proxy.statusPort=123",
    "values.global.proxy.readinessInitialDelaySeconds=100",
    "values.global.proxy.readinessPeriodSeconds=200",
    "values.global.proxy.readinessFailureThreshold=300",
];
const TRAFFIC: &[&str] = &[
    "values.global.proxy.includeIPRanges=127.0.0.1/24,10.96.0.1/24",
    "values.global.proxy.excludeIPRanges=10.96.0.2/24,10.96.0.3/24",
    "values.global.proxy.excludeInboundPorts=4,5,6",
    "values.global.proxy.statusPort=0",
];

/// Cases with settings of the chart.
const SET: &[(&str, &str, &[&str])] = &[
    (
        "hello.yaml",
        "hello.yaml.cni.injected",
        &[
            "components.cni.enabled=true",
            "values.cni.provider=default",
            "values.global.network=network1",
        ],
    ),
    (
        "hello.yaml",
        "hello.yaml.proxyImageName.injected",
        &["values.global.proxy.image=proxyTest"],
    ),
    (
        "hello.yaml",
        "hello.yaml.proxyInitImageName.injected",
        &["values.global.proxy_init.image=proxyInitTest"],
    ),
    (
        "hello.yaml",
        "hello-always.yaml.injected",
        &["values.global.imagePullPolicy=Always"],
    ),
    (
        "hello.yaml",
        "hello-never.yaml.injected",
        &["values.global.imagePullPolicy=Never"],
    ),
    (
        "traffic-params.yaml",
        "traffic-params.yaml.injected",
        TRAFFIC,
    ),
    ("status_params.yaml", "status_params.yaml.injected", STATUS),
    (
        "kubevirtInterfaces.yaml",
        "kubevirtInterfaces.yaml.injected",
        STATUS,
    ),
    (
        "reroute-virtual-interfaces.yaml",
        "reroute-virtual-interfaces.yaml.injected",
        STATUS,
    ),
    (
        "hello.yaml",
        "hello-mount-mtls-certs.yaml.injected",
        &["values.global.mountMtlsCerts=true"],
    ),
    ("hello.yaml", "hello-cncf-networks.yaml.injected", MULTUS),
    (
        "hello-existing-cncf-networks.yaml",
        "hello-existing-cncf-networks.yaml.injected",
        MULTUS,
    ),
    (
        "hello-existing-cncf-networks-json.yaml",
        "hello-existing-cncf-networks-json.yaml.injected",
        MULTUS,
    ),
    (
        "hello.yaml",
        "hello.proxyHoldsApplication.yaml.injected",
        HOLD,
    ),
    (
        "hello-probes.yaml",
        "hello-probes.proxyHoldsApplication.yaml.injected",
        HOLD,
    ),
    (
        "hello-probes-noProxyHoldApplication-ProxyConfig.yaml",
        "hello-probes-noProxyHoldApplication-ProxyConfig.yaml.injected",
        HOLD,
    ),
    (
        "proxy-override-runas.yaml",
        "proxy-override-runas.yaml.cni.injected",
        CNI,
    ),
    ("merge-probers.yaml", "merge-probers.yaml.injected", HOLD),
    (
        "enable-core-dump.yaml",
        "enable-core-dump.yaml.injected",
        &["values.global.proxy.enableCoreDump=true"],
    ),
    (
        "hello.yaml",
        "hello-fips-140-3.yaml.injected",
        &["values.pilot.env.COMPLIANCE_POLICY=fips-140-3"],
    ),
];

/// Cases in a namespace of OpenShift.
const OPENSHIFT: &[&str] = &[
    "hello-openshift.yaml",
    "hello-openshift-custom-injection.yaml",
    "hello-openshift-tproxy.yaml",
];

/// Cases with an `IstioOperator`.
const OPERATOR: &[(&str, &str, &str)] = &[
    (
        "hello.yaml",
        "hello-image-secrets-in-values.yaml.injected",
        "hello-image-secrets-in-values.iop.yaml",
    ),
    (
        "hello-image-pull-secret.yaml",
        "hello-multiple-image-secrets.yaml.injected",
        "hello-image-secrets-in-values.iop.yaml",
    ),
    (
        "hello.yaml",
        "hello-template-in-values.yaml.injected",
        "hello-template-in-values.iop.yaml",
    ),
    (
        "custom-template.yaml",
        "custom-template.yaml.injected",
        "custom-template.iop.yaml",
    ),
    (
        "proxy-resources-null.yaml",
        "proxy-resources-null.yaml.injected",
        "proxy-resources-null.iop.yaml",
    ),
    (
        "proxy-resources-null-no-init.yaml",
        "proxy-resources-null-no-init.yaml.injected",
        "proxy-resources-null.iop.yaml",
    ),
    (
        "proxy-resources-zero.yaml",
        "proxy-resources-zero.yaml.injected",
        "proxy-resources-zero.iop.yaml",
    ),
    (
        "proxy-resources-memory-null.yaml",
        "proxy-resources-memory-null.yaml.injected",
        "proxy-resources-memory-null.iop.yaml",
    ),
    (
        "proxy-resources-mixed-null.yaml",
        "proxy-resources-mixed-null.yaml.injected",
        "proxy-resources-mixed-null.iop.yaml",
    ),
    (
        "sidecar-spire.yaml",
        "sidecar-spire.yaml.injected",
        "spire-template.iop.yaml",
    ),
    (
        "gateway-spire.yaml",
        "gateway-spire.yaml.injected",
        "spire-template.iop.yaml",
    ),
];

/// Cases with another mesh configuration.
const MESH: &[(&str, &str, &str)] = &[
    (
        "hello.yaml",
        "hello-tproxy.yaml.injected",
        "defaultConfig: {interceptionMode: TPROXY}",
    ),
    (
        "format-duration.yaml",
        "format-duration.yaml.injected",
        "defaultConfig: {drainDuration: 23s}",
    ),
    (
        "traffic-annotations.yaml",
        "traffic-annotations.yaml.injected",
        "defaultConfig: {proxyMetadata: {ISTIO_META_TLS_CLIENT_KEY: /etc/identity/client/keys/client-key.pem}}",
    ),
    (
        "proxy-override-runas.yaml",
        "proxy-override-runas.yaml.tproxy.injected",
        "defaultConfig: {interceptionMode: TPROXY}",
    ),
    (
        "hello-tracing-disabled.yaml",
        "hello-tracing-disabled.yaml.injected",
        "defaultConfig: {tracing: {}}",
    ),
    (
        "hello-probes-localhost.yaml",
        "hello-probes-localhost.yaml.injected",
        "inboundTrafficPolicy: {mode: LOCALHOST}",
    ),
    (
        "hello-otel-semconv.yaml",
        "hello-otel-semconv.yaml.injected",
        "extensionProviders: [{name: otel, opentelemetry: {service: otel-collector.observability.svc.cluster.local, \
         port: 4317, serviceAttributeEnrichment: OTEL_SEMANTIC_CONVENTIONS}}]",
    ),
];

/// Cases without native sidecars.
const CLASSIC: &[(&str, &str)] = &[
    ("hello.yaml", "hello-old-version.yaml.injected"),
    ("cronjob.yaml", "cronjob-old-version.yaml.injected"),
    ("daemonset.yaml", "daemonset-old-version.yaml.injected"),
    ("job.yaml", "job-old-version.yaml.injected"),
    ("pod.yaml", "pod-old-version.yaml.injected"),
    ("replicaset.yaml", "replicaset-old-version.yaml.injected"),
    ("statefulset.yaml", "statefulset-old-version.yaml.injected"),
    (
        "native-sidecar.yaml",
        "native-sidecar-old-version.yaml.injected",
    ),
    (
        "native-sidecar-opt-in.yaml",
        "native-sidecar-opt-in.yaml.injected",
    ),
    (
        "native-sidecar-opt-out.yaml",
        "native-sidecar-opt-out.yaml.injected",
    ),
];

/// Cases with native sidecars.
const NATIVE: &[(&str, &str)] = &[
    (
        "proxy-override-args.yaml",
        "proxy-override-args-native.yaml.injected",
    ),
    ("native-sidecar.yaml", "native-sidecar.yaml.injected"),
    ("gateway.yaml", "gateway.yaml.injected"),
    (
        "native-sidecar-opt-in.yaml",
        "native-sidecar-opt-in.yaml.injected",
    ),
    (
        "native-sidecar-opt-out.yaml",
        "native-sidecar-opt-out.yaml.injected",
    ),
];

/// All cases of a corpus of these files: those above, and each other input without settings.
pub(super) fn all(files: &BTreeSet<String>) -> Vec<Case> {
    let mut cases = with_settings();
    cases.retain(|case| files.contains(&case.input) && files.contains(&case.want));
    let mut tested: BTreeSet<String> = cases.iter().map(|case| case.want.clone()).collect();
    tested.extend(REFUSED.iter().map(|(input, _)| format!("{input}.injected")));
    for want in files {
        let input = want.strip_suffix(".injected");
        let input = input.filter(|input| files.contains(*input) && !tested.contains(want));
        cases.extend(input.map(|input| Case::new(input, want)));
    }
    cases
}

fn with_settings() -> Vec<Case> {
    let set = SET.iter().map(|(input, want, set)| Case {
        set,
        ..Case::new(input, want)
    });
    let operator = OPERATOR.iter().map(|(input, want, operator)| Case {
        operator: Some(operator),
        ..Case::new(input, want)
    });
    let mesh = MESH.iter().map(|(input, want, mesh)| Case {
        mesh,
        ..Case::new(input, want)
    });
    let classic = CLASSIC.iter().map(|(input, want)| Case {
        native: Some(false),
        ..Case::new(input, want)
    });
    let native = NATIVE.iter().map(|(input, want)| Case {
        native: Some(true),
        ..Case::new(input, want)
    });
    let openshift = OPENSHIFT.iter().map(|input| Case {
        set: CNI,
        openshift: true,
        ..Case::new(input, &format!("{input}.injected"))
    });
    let cases = set.chain(operator).chain(mesh).chain(classic);
    cases.chain(native).chain(openshift).collect()
}
