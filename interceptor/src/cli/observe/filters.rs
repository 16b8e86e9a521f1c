//! The filters of `observe`, as in Hubble: `--not` excludes what the next filter selects.

use anyhow::Result;
use clap::{
    ArgMatches, Args, Command, Error, FromArgMatches, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use interceptor_ebpf::{Reason, Refusal};
use ipnet::IpNet;

use crate::{
    arguments::{number, wrong_usage},
    netns::{Netns, NetnsSpec},
    observe::filter::{Condition, Filter, network},
    outcome::{Direction, Verdict},
    pod_name::PodName,
};

/// The filters as flags.
#[derive(Args)]
#[command(next_help_heading = "Filters (repeatable; those of one kind are alternatives)")]
struct Flags {
    /// Exclude what the next filter selects
    #[arg(long, action = clap::ArgAction::Count)]
    not: u8,

    /// A pod that the node agent has captured
    #[arg(long, value_name = "NAMESPACE/NAME", value_delimiter = ',')]
    pod: Vec<PodName>,

    /// All pods of a namespace that the node agent has captured
    #[arg(short, long, value_delimiter = ',')]
    namespace: Vec<String>,

    /// A pod: a path to its network namespace, or the ID of a process in it
    #[arg(long, value_name = "PATH|PID")]
    netns: Vec<NetnsSpec>,

    /// A verdict
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',')]
    verdict: Vec<Verdict>,

    /// The rule that decided: a `reason` of the metrics
    #[arg(long, value_name = "REASON", value_parser = reasons(), hide_possible_values = true, value_delimiter = ',')]
    reason: Vec<String>,

    /// The address of either end, or a prefix that contains it
    #[arg(long, value_name = "IP|PREFIX", value_parser = network, value_delimiter = ',')]
    ip: Vec<IpNet>,

    /// The port of either end
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = number(1..=u16::MAX))]
    port: Vec<u16>,

    /// The owner of the socket
    #[arg(long, value_name = "UID", value_delimiter = ',', value_parser = number(0..=u32::MAX))]
    uid: Vec<u32>,

    /// The name of the process that connects
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    comm: Vec<String>,

    /// The direction
    #[arg(long, value_enum, value_name = "DIRECTION")]
    traffic_direction: Vec<TrafficDirection>,

    /// IPv4
    #[arg(short = '4', long)]
    ipv4: bool,

    /// IPv6
    #[arg(short = '6', long)]
    ipv6: bool,
}

/// The direction, also under the names of network policies.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum TrafficDirection {
    #[value(alias = "ingress")]
    Inbound,
    #[value(alias = "egress")]
    Outbound,
}

fn reasons() -> impl clap::builder::TypedValueParser<Value = String> {
    let reasons = Reason::ALL.into_iter().map(Reason::name);
    let all = reasons.chain(Refusal::ALL.into_iter().map(Refusal::name));
    PossibleValuesParser::new(all).map(|reason| reason)
}

/// What a flag selects. A network namespace is opened later.
#[derive(Clone, Debug)]
enum Selection {
    Netns(NetnsSpec),
    Condition(Condition),
}

impl From<Condition> for Selection {
    fn from(condition: Condition) -> Self {
        Self::Condition(condition)
    }
}

impl From<TrafficDirection> for Direction {
    fn from(direction: TrafficDirection) -> Self {
        match direction {
            TrafficDirection::Inbound => Self::Inbound,
            TrafficDirection::Outbound => Self::Outbound,
        }
    }
}

/// The filters, each with whether it excludes flows.
#[derive(Debug)]
pub(super) struct Filters(Vec<(bool, Selection)>);

impl Filters {
    /// The filter. Opens network namespaces.
    pub(super) fn filter(&self) -> Result<Filter> {
        let mut filter = Filter::default();
        for (excludes, selection) in &self.0 {
            let condition = match selection {
                Selection::Netns(spec) => Condition::Netns(Netns::open(spec)?.cookie()),
                Selection::Condition(condition) => condition.clone(),
            };
            if *excludes {
                filter.unwanted.push(condition);
            } else {
                filter.wanted.push(condition);
            }
        }
        Ok(filter)
    }

    /// The namespace, if only one is wanted.
    pub(super) fn only_namespace(&self) -> Option<&str> {
        let mut wanted = self.0.iter().filter_map(|filter| match filter {
            (false, Selection::Condition(Condition::Namespace(name))) => Some(name.as_str()),
            _ => None,
        });
        let first = wanted.next()?;
        wanted.next().is_none().then_some(first)
    }

    /// The filter of flows of another node.
    pub(super) fn filter_of_another_node(&self) -> Result<Filter> {
        let mut selections = self.0.iter().map(|(_, selection)| selection);
        if selections.any(|selection| matches!(selection, Selection::Netns(_))) {
            return Err(wrong_usage(
                "--netns is a network namespace of this machine: name a pod of the cluster",
            ));
        }
        self.filter()
    }

    fn of(matches: &ArgMatches, flags: Flags) -> Self {
        use Condition::{Command, Ip, Namespace, Port, Reason, Uid, V4, V6, Verdict};

        // A flag that is not given has a place, too.
        let nots = matches.indices_of("not").filter(|_| flags.not > 0);
        let mut all = Collector {
            matches,
            nots: nots.into_iter().flatten().collect(),
            found: Vec::new(),
        };
        let pod = |pod: PodName| Condition::Pod(pod.namespace, pod.name);
        all.add("pod", flags.pod, |value| pod(value).into());
        all.add("namespace", flags.namespace, |value| {
            Namespace(value).into()
        });
        all.add("netns", flags.netns, Selection::Netns);
        all.add("verdict", flags.verdict, |value| Verdict(value).into());
        all.add("reason", flags.reason, |value| Reason(value).into());
        all.add("ip", flags.ip, |value| Ip(value).into());
        all.add("port", flags.port, |value| Port(value).into());
        all.add("uid", flags.uid, |value| Uid(value).into());
        all.add("comm", flags.comm, |value| Command(value).into());
        all.add("traffic_direction", flags.traffic_direction, |value| {
            Condition::Direction(value.into()).into()
        });
        all.add_flag("ipv4", flags.ipv4, &V4);
        all.add_flag("ipv6", flags.ipv6, &V6);
        Self(all.found)
    }
}

/// Collects the filters of a command line.
struct Collector<'a> {
    matches: &'a ArgMatches,
    /// The places of `--not`.
    nots: Vec<usize>,
    found: Vec<(bool, Selection)>,
}

// clap counts a flag, the name of an option and each of its values as one place; the values after one
// name have consecutive places.
impl Collector<'_> {
    /// Adds what the values of an option select.
    fn add<T>(&mut self, option: &str, values: Vec<T>, select: impl Fn(T) -> Selection) {
        let (mut first, mut previous) = (0, None);
        for (place, value) in self.places(option).into_iter().zip(values) {
            if previous.is_none_or(|previous| previous + 1 != place) {
                first = place;
            }
            previous = Some(place);
            let name = first - 1;
            self.found.push((self.is_after_not(name), select(value)));
        }
    }

    /// Adds what a flag selects, if it is given.
    fn add_flag(&mut self, flag: &str, is_given: bool, condition: &Condition) {
        for place in self.places(flag).into_iter().filter(|_| is_given) {
            let excludes = self.is_after_not(place);
            self.found.push((excludes, condition.clone().into()));
        }
    }

    fn places(&self, argument: &str) -> Vec<usize> {
        let places = self.matches.indices_of(argument);
        places.into_iter().flatten().collect()
    }

    fn is_after_not(&self, name: usize) -> bool {
        self.nots.contains(&(name - 1))
    }
}

impl FromArgMatches for Filters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self::of(matches, Flags::from_arg_matches(matches)?))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Filters {
    fn augment_args(command: Command) -> Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args_for_update(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Filter, Error> {
        let command = Filters::augment_args(Command::new("observe"));
        let words = ["observe"].into_iter().chain(line.split_whitespace());
        let matches = command.try_get_matches_from(words)?;
        Ok(Filters::from_arg_matches(&matches)?.filter().unwrap())
    }

    #[test]
    fn not_excludes_what_the_next_filter_selects() {
        let (port, uid) = (Condition::Port, Condition::Uid);
        let verdict = Condition::Verdict;
        for (line, wanted, unwanted) in [
            ("", vec![], vec![]),
            ("--port 80", vec![port(80)], vec![]),
            ("--not --port 80", vec![], vec![port(80)]),
            ("--not --port=80 --uid 0", vec![uid(0)], vec![port(80)]),
            (
                "--port 80 --not --port 81,82 --port 83",
                vec![port(80), port(83)],
                vec![port(81), port(82)],
            ),
            (
                "--not -4 --verdict refused,PASSED",
                vec![verdict(Verdict::Refused), verdict(Verdict::Passed)],
                vec![Condition::V4],
            ),
            ("-6 --not --uid 1337", vec![Condition::V6], vec![uid(1337)]),
            (
                "--not --traffic-direction ingress --traffic-direction outbound",
                vec![Condition::Direction(Direction::Outbound)],
                vec![Condition::Direction(Direction::Inbound)],
            ),
        ] {
            let filter = parse(line).unwrap();
            assert_eq!(filter.wanted, wanted, "{line}");
            assert_eq!(filter.unwanted, unwanted, "{line}");
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for line in [
            "--port x",
            "--ip 10.0.0.0/33",
            "--reason why",
            "--verdict lost",
            "--traffic-direction up",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
