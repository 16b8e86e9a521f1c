//! Flows as text.

use std::fmt::Write as _;

use jiff::{Zoned, fmt::rfc2822, tz::TimeZone};

use super::flow::{Endpoint, Flow, Process, Protocol};
use crate::outcome::Verdict;

/// How times are printed. The names are those of Go's `time` package, as in Hubble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum TimeFormat {
    /// Nov 30 12:00:00.000, in local time
    #[default]
    StampMilli,
    /// 2026-11-30T12:00:00Z
    #[value(name = "RFC3339")]
    Rfc3339,
    /// 2026-11-30T12:00:00.000Z
    #[value(name = "RFC3339Milli")]
    Rfc3339Milli,
    /// 2026-11-30T12:00:00.000000Z
    #[value(name = "RFC3339Micro")]
    Rfc3339Micro,
    /// 2026-11-30T12:00:00.000000000Z
    #[value(name = "RFC3339Nano")]
    Rfc3339Nano,
    /// Mon, 30 Nov 2026 12:00:00 +0000, in local time
    #[value(name = "RFC1123Z")]
    Rfc1123z,
}

/// How flows are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) time: TimeFormat,
    pub(crate) is_colored: bool,
}

/// The columns of a table.
const COLUMNS: [(&str, usize); 6] = [
    ("TIMESTAMP", 19),
    ("POD", 24),
    ("SOURCE", 22),
    ("DESTINATION", 22),
    ("VERDICT", 8),
    ("REASON", 0),
];

/// The header of a table.
pub(crate) fn table_header() -> String {
    line(&COLUMNS.map(|(name, _)| name.to_owned()))
}

impl Style {
    /// One line with everything that matters.
    pub(crate) fn compact(self, flow: &Flow) -> String {
        let to = match flow.proxy_port {
            Some(port) => format!(" to {port}"),
            None => String::new(),
        };
        let protocol = match flow.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => " (UDP)",
        };
        let mut text = format!(
            "{}: {} {} {} -> {}{protocol} {}{to}: {}",
            self.time(flow),
            flow.pod.display_name(),
            flow.direction.name(),
            endpoint(&flow.source),
            endpoint(&flow.destination),
            self.verdict(flow.verdict),
            flow.explanation,
        );
        if let Some(process) = &flow.process {
            let _written = write!(text, " [{}]", self::process(process));
        }
        text + "\n"
    }

    /// A line for each field.
    pub(crate) fn dict(self, flow: &Flow) -> String {
        let mut text = String::new();
        let mut add = |name: &str, value: &str| {
            let _written = writeln!(text, "{name:>11}: {value}");
        };
        add("TIMESTAMP", &self.time(flow));
        add("POD", &flow.pod.display_name());
        add("DIRECTION", flow.direction.name());
        add("PROTOCOL", &format!("{:?}", flow.protocol).to_uppercase());
        add("SOURCE", &endpoint(&flow.source));
        add("DESTINATION", &endpoint(&flow.destination));
        add("VERDICT", &self.verdict(flow.verdict));
        if let Some(port) = flow.proxy_port {
            add("PROXY PORT", &port.to_string());
        }
        add("REASON", &format!("{}: {}", flow.reason, flow.explanation));
        if let Some(process) = &flow.process {
            add("PROCESS", &self::process(process));
        }
        text + "-----------\n"
    }

    /// A row of a table.
    pub(crate) fn row(self, flow: &Flow) -> String {
        let reason = flow.process.as_ref().map_or_else(
            || flow.reason.clone(),
            |process| format!("{} [{}]", flow.reason, self::process(process)),
        );
        line(&[
            self.time(flow),
            flow.pod.display_name(),
            endpoint(&flow.source),
            endpoint(&flow.destination),
            self.verdict(flow.verdict),
            reason,
        ])
    }

    fn time(self, flow: &Flow) -> String {
        let local = || Zoned::new(flow.time, TimeZone::system());
        match self.time {
            TimeFormat::StampMilli => local().strftime("%b %e %H:%M:%S%.3f").to_string(),
            TimeFormat::Rfc3339 => format!("{:.0}", flow.time),
            TimeFormat::Rfc3339Milli => format!("{:.3}", flow.time),
            TimeFormat::Rfc3339Micro => format!("{:.6}", flow.time),
            TimeFormat::Rfc3339Nano => format!("{:.9}", flow.time),
            // Fails only for years that have more than four digits.
            TimeFormat::Rfc1123z => rfc2822::to_string(&local()).unwrap_or_default(),
        }
    }

    fn verdict(self, verdict: Verdict) -> String {
        let name = verdict.name();
        let color = match verdict {
            Verdict::Captured => 32,
            Verdict::Passed => 33,
            Verdict::Refused => 31,
        };
        if self.is_colored {
            format!("\x1b[{color}m{name}\x1b[0m")
        } else {
            name.to_owned()
        }
    }
}

/// A line of a table. A value that is too long moves the rest of the line.
fn line(values: &[String; COLUMNS.len()]) -> String {
    let mut text = String::new();
    for (value, (_, width)) in values.iter().zip(COLUMNS) {
        // Colors take no space.
        let hidden = value.matches('\x1b').count() / 2 * "\x1b[32m\x1b[0m".len();
        let _written = write!(text, "{value:width$} ", width = width + hidden);
    }
    text.trim_end().to_owned() + "\n"
}

fn endpoint(end: &Endpoint) -> String {
    match end.port {
        Some(port) => std::net::SocketAddr::new(end.ip, port).to_string(),
        None => end.ip.to_string(),
    }
}

/// The name of a process without control characters: an app chooses it, and must not write lines of its
/// own or change the observer's terminal.
fn printable(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

fn process(process: &Process) -> String {
    let mut text = format!("{} {}", printable(&process.command), process.pid);
    match (process.uid, process.gid) {
        (Some(uid), Some(gid)) => {
            let _written = write!(text, ", uid {uid}, gid {gid}");
        }
        _ => text += ", no owner",
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::flow::tests::flow;

    const PLAIN: Style = Style {
        time: TimeFormat::Rfc3339Milli,
        is_colored: false,
    };

    #[test]
    fn a_flow_is_one_line() {
        assert_eq!(
            PLAIN.compact(&flow()),
            "2026-11-30T12:00:00.123Z: shop/web-0 outbound 10.1.0.2 -> 10.2.0.9:80 CAPTURED to \
             15001: the destination is included (-i) [curl 4711, uid 1000, gid 1000]\n"
        );
    }

    /// A finding of the fuzz target `map_records`.
    #[test]
    fn the_name_of_a_process_cannot_add_a_line() {
        let mut flow = flow();
        flow.process.as_mut().unwrap().command = "a\nb\u{1b}[2J".to_owned();
        for text in [PLAIN.compact(&flow), PLAIN.row(&flow)] {
            assert!(
                text.ends_with("[a\\nb\\u{1b}[2J 4711, uid 1000, gid 1000]\n"),
                "{text}"
            );
        }
        assert_eq!(PLAIN.dict(&flow).lines().count(), 11);
    }

    #[test]
    fn an_unnamed_pod_is_shown_by_its_network_namespace() {
        let mut flow = flow();
        flow.pod.name = None;
        assert!(PLAIN.compact(&flow).contains("Z: /run/netns/web outbound"));
        flow.pod.netns.clear();
        assert!(PLAIN.compact(&flow).contains("Z: netns cookie 7 outbound"));
    }

    #[test]
    fn each_field_has_its_line() {
        let expected = "  TIMESTAMP: 2026-11-30T12:00:00.123Z
        POD: shop/web-0
  DIRECTION: outbound
   PROTOCOL: TCP
     SOURCE: 10.1.0.2
DESTINATION: 10.2.0.9:80
    VERDICT: CAPTURED
 PROXY PORT: 15001
     REASON: prefix_included: the destination is included (-i)
    PROCESS: curl 4711, uid 1000, gid 1000
-----------
";
        assert_eq!(PLAIN.dict(&flow()), expected);
    }

    #[test]
    fn rows_are_below_their_header_with_and_without_color() {
        let colored = Style {
            is_colored: true,
            ..PLAIN
        };
        let row = colored.row(&flow());
        let plain = row.replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(plain, PLAIN.row(&flow()));
        let at = table_header().find("VERDICT");
        let mut wide = flow();
        wide.pod.name = Some("web".to_owned());
        assert_eq!(
            Style {
                time: TimeFormat::StampMilli,
                ..PLAIN
            }
            .row(&wide)
            .find("CAPTURED"),
            at
        );
    }

    #[test]
    fn times_have_the_format_that_was_chosen() {
        for (time, expected) in [
            (TimeFormat::Rfc3339, "2026-11-30T12:00:00Z"),
            (TimeFormat::Rfc3339Micro, "2026-11-30T12:00:00.123456Z"),
            (TimeFormat::Rfc3339Nano, "2026-11-30T12:00:00.123456789Z"),
        ] {
            assert_eq!(Style { time, ..PLAIN }.time(&flow()), expected);
        }
    }
}
