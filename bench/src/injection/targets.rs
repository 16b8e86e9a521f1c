//! The targets of injection.

use crate::{
    Section, Unit,
    targets::{Bound, Target, Verdict},
};

/// Titles of sections.
pub(super) const FUNCTION: &str = "The function, without I/O";
pub(super) const COMMAND: &str = "interceptor inject -f";
pub(super) const LOAD: &str = "The webhook under load, over TLS";
/// Names of columns.
pub(super) const TEMPLATE: &str = "template";
pub(super) const BUILTIN: &str = "built-in";

/// The row, in which section, and its limit.
type Wanted = (&'static str, &'static str, Unit, Bound);

const TARGETS: [Wanted; 12] = [
    milliseconds(FUNCTION, "inject, not in the memo, p50", 1.5),
    milliseconds(FUNCTION, "inject, in the memo, p50", 0.5),
    milliseconds(COMMAND, "all Deployments", 3_000.0),
    milliseconds(LOAD, "1,000/s, HTTP/2, p50", 2.0),
    milliseconds(LOAD, "1,000/s, HTTP/2, p99", 10.0),
    none(LOAD, "1,000/s, HTTP/2, errors"),
    memory(LOAD, "1,000/s, HTTP/2, memory"),
    milliseconds(LOAD, "1,000/s, HTTP/1.1, p50", 2.0),
    milliseconds(LOAD, "1,000/s, HTTP/1.1, p99", 10.0),
    none(LOAD, "1,000/s, HTTP/1.1, errors"),
    memory(LOAD, "1,000/s, HTTP/1.1, memory"),
    none(LOAD, "200/s, HTTP/2, no pod in the memo, errors"),
];

const fn milliseconds(section: &'static str, row: &'static str, limit: f64) -> Wanted {
    (section, row, Unit::Milliseconds, Bound::Below(limit))
}

const fn none(section: &'static str, row: &'static str) -> Wanted {
    (section, row, Unit::Count, Bound::AtMost(0.0))
}

const fn memory(section: &'static str, row: &'static str) -> Wanted {
    (section, row, Unit::Mebibytes, Bound::Below(64.0))
}

/// Compares the results of both sidecars with the targets.
pub(super) fn judge(sections: &[Section]) -> Vec<Target> {
    let of_both = |wanted| [TEMPLATE, BUILTIN].map(|of| judge_one(sections, wanted, of));
    TARGETS.iter().flat_map(of_both).collect()
}

fn judge_one(sections: &[Section], wanted: &Wanted, of: &str) -> Target {
    let (title, what, unit, bound) = wanted;
    let section = sections.iter().find(|section| section.title == *title);
    let row = section.and_then(|section| section.row(what));
    let measured = row.and_then(|row| row.value(of));
    Target {
        what: format!("{what}, {of}"),
        wanted: bound.text(Some(*unit)),
        verdict: measured.map_or(Verdict::NotMeasured, |measured| {
            bound.judge(measured.median)
        }),
        measured,
        iptables: None,
        unit: Some(*unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Row;

    #[test]
    fn each_sidecar_has_a_verdict() {
        let numbers =
            [(TEMPLATE, 3.0), (BUILTIN, 1.0)].map(|(name, number)| (name.to_owned(), vec![number]));
        let what = "1,000/s, HTTP/2, p50";
        let section = Section {
            title: LOAD.to_owned(),
            rows: vec![Row::new(what, Unit::Milliseconds, &numbers)],
            ..Section::default()
        };
        let targets = judge(&[section]);
        let verdict = |of| {
            let name = format!("{what}, {of}");
            let mut found = targets.iter().filter(|target| target.what == name);
            found.next().expect("a target").verdict
        };
        assert_eq!(verdict(TEMPLATE), Verdict::Missed);
        assert_eq!(verdict(BUILTIN), Verdict::Met);
        let missing = targets
            .iter()
            .filter(|target| target.verdict == Verdict::NotMeasured);
        assert_eq!(missing.count(), targets.len() - 2);
    }
}
