//! One pod on one screen.

use jiff::Timestamp;

use super::{
    NETWORK_CHANGED, age, connections,
    settings::{self, Lists},
    state::{self, State},
};
use crate::{
    bpf::interface_hooks::Side,
    cli::output::{self, WIDTH, lines},
    dataplane::record::{GuardedUplink, Record},
    settings::{DnsCapture, Mode, Settings},
    status::PodStatus,
};

/// A line or a paragraph for each property.
pub(super) fn screen(pod: &PodStatus) -> String {
    let mut table = output::plain_table();
    let width = output::terminal_width().map_or(WIDTH, |width| width.min(WIDTH));
    output::wrap(&mut table, width);
    for (name, value) in properties(pod) {
        table.add_row([format!("{name}:"), value]);
    }
    format!("{}\n{}", lines(table), connections::by_reason(pod))
}

fn properties(pod: &PodStatus) -> Vec<(&'static str, String)> {
    let attached = &pod.attached;
    let settings = &attached.settings;
    let mut all = vec![
        ("Pod", pod.display_name()),
        ("State", state(pod)),
        ("Attached", attached_at(pod)),
        ("Network namespace", attached.netns.display().to_string()),
        ("Cgroup", cgroup(pod)),
        ("Listeners", listeners(pod)),
        ("Proxy", settings::proxy(settings, Lists::Start)),
        ("Inbound", settings::inbound(settings, Lists::Start)),
        ("Outbound", settings::outbound(settings, Lists::Start)),
        ("IPv6", captured(attached.ipv6).to_owned()),
    ];
    all.extend(special(settings));
    if !settings.strict.is_off() {
        all.push(("Strict mode", strict(attached)));
    }
    if pod.evicted_stand_ins > 0 {
        let evicted = format!(
            "{}: SO_ORIGINAL_DST no longer returns these destinations",
            pod.evicted_stand_ins
        );
        all.push(("Evicted stand-ins", evicted));
    }
    if pod.network_changed {
        all.push(("Note", NETWORK_CHANGED.to_owned()));
    }
    let warnings = pod.warnings.iter();
    all.extend(warnings.map(|warning| ("Warning", warning.clone())));
    all
}

fn state(pod: &PodStatus) -> String {
    let state = State::of(pod);
    match state {
        State::NoListener => format!(
            "{state} on {}: connections captured to it are refused",
            Lists::Full.join(&state::ports_without_listener(pod))
        ),
        _ => state.to_string(),
    }
}

fn attached_at(pod: &PodStatus) -> String {
    match pod.attached.attached_at {
        Some(at) => format!("{at:.0}, {} ago", age::of(pod, Timestamp::now())),
        None => "by an earlier release, which did not record when".to_owned(),
    }
}

/// The cgroup whose sockets are captured.
fn cgroup(pod: &PodStatus) -> String {
    let attached = &pod.attached;
    let own = attached.pod_cgroup.as_ref();
    own.map_or(&attached.cgroup, |cgroup| &cgroup.path)
        .display()
        .to_string()
}

fn listeners(pod: &PodStatus) -> String {
    let settings = &pod.attached.settings;
    let one = |direction: &str, port: u16, count: usize| match count {
        0 => format!("{direction} {port}: none"),
        1 => format!("{direction} {port}: yes"),
        count => format!("{direction} {port}: {count} sockets"),
    };
    let outbound = one("outbound", settings.outbound_port, pod.outbound_listeners);
    let inbound = one("inbound", settings.inbound_port, pod.inbound_listeners);
    format!("{outbound}; {inbound}")
}

fn strict(attached: &Record) -> String {
    let place = |uplink: &GuardedUplink| match uplink.at {
        Side::Node => format!("on the node's side of {}", uplink.interface),
        Side::Pod => format!("at {} in the pod", uplink.interface),
    };
    let places: Vec<_> = attached.uplinks.iter().map(place).collect();
    format!("{}, {}", attached.settings.strict.name(), places.join(", "))
}

/// Settings that most pods do not have.
fn special(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut special = Vec::new();
    if let DnsCapture::Servers(servers) = &settings.dns {
        special.push(("DNS servers", Lists::Start.join(servers)));
    }
    if settings.mode == Mode::Tproxy {
        let mark = format!(
            "mark {}, routing table {}",
            settings.tproxy_mark, settings.tproxy_table
        );
        special.push(("TPROXY", mark));
    }
    if !settings.rerouted_interfaces.is_empty() {
        let interfaces = Lists::Start.join(&settings.rerouted_interfaces);
        special.push(("Inbound as outbound", format!("interfaces {interfaces}")));
    }
    special
}

const fn captured(yes: bool) -> &'static str {
    if yes { "captured" } else { "not captured" }
}
