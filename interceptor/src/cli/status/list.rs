//! Pods as a table, one in each row.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{
    age, connections,
    settings::{self, Lists},
    state::State,
};
use crate::{
    cli::output::{lines, table},
    outcome::Verdict,
    status::PodStatus,
};

/// What fits a terminal: everything else is in the wide table, or on the screen of one pod.
pub(super) fn narrow(pods: &[PodStatus]) -> String {
    let mut table = table(["POD", "STATE", "INBOUND", "OUTBOUND", "REFUSED", "AGE"]);
    let now = Timestamp::now();
    for pod in pods {
        table.add_row([
            pod.display_name(),
            State::of(pod).to_string(),
            settings::inbound_in_short(&pod.attached.settings),
            settings::outbound_in_short(&pod.attached.settings),
            connections::total(pod, Verdict::Refused).to_string(),
            age::of(pod, now),
        ]);
    }
    lines(table)
}

/// Settings in full.
pub(super) fn wide(pods: &[PodStatus]) -> String {
    let mut table = table([
        "POD",
        "STATE",
        "LISTENING",
        "CAPTURED",
        "PASSED",
        "REFUSED",
        "AGE",
        "IPV6",
        "PROXY",
        "INBOUND",
        "OUTBOUND",
    ]);
    let now = Timestamp::now();
    for pod in pods {
        let settings = &pod.attached.settings;
        let total = |verdict| connections::total(pod, verdict).to_string();
        table.add_row([
            pod.display_name(),
            State::of(pod).to_string(),
            listening(pod),
            total(Verdict::Captured),
            total(Verdict::Passed),
            total(Verdict::Refused),
            age::of(pod, now),
            yes_or_no(pod.attached.ipv6).to_owned(),
            settings::proxy(settings, Lists::Full),
            settings::inbound(settings, Lists::Full),
            settings::outbound(settings, Lists::Full),
        ]);
    }
    lines(table)
}

fn listening(pod: &PodStatus) -> String {
    let settings = &pod.attached.settings;
    format!(
        "{}: {}, {}: {}",
        settings.outbound_port,
        yes_or_no(pod.outbound_listeners > 0),
        settings.inbound_port,
        yes_or_no(pod.inbound_listeners > 0)
    )
}

const fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// One line for each note and warning.
pub(super) fn problems(pods: &[PodStatus]) -> String {
    let mut text = String::new();
    for pod in pods {
        let name = pod.display_name();
        if pod.network_changed {
            let _written = writeln!(text, "note: {name}: {}", super::NETWORK_CHANGED);
        }
        for warning in &pod.warnings {
            let _written = writeln!(text, "warning: {name}: {warning}");
        }
    }
    text
}
