//! Parsing the input of `iptables-restore`.

use std::{ops::RangeInclusive, str::FromStr};

use super::{
    Firewall, Protocol, State, Table,
    rule::{Cidr, Match, Rule, Target, Test},
};

impl Firewall {
    /// Loads rules.
    ///
    /// # Panics
    ///
    /// At an unknown word.
    #[must_use]
    pub fn load(input: &str) -> Self {
        let mut loader = Loader {
            names: BUILT_IN
                .map(|(table, name)| (table, name.to_owned()))
                .into(),
            chains: BUILT_IN.map(|_| Vec::new()).into(),
            table: None,
        };
        for line in input.lines() {
            loader.read(line);
        }
        assert!(loader.table.is_none(), "no COMMIT at the end of {input}");
        Self {
            entries: [[0, 1], [2, 3], [4, 5]],
            chains: loader.chains,
        }
    }
}

/// The built-in chains, in the order of [`Firewall::entries`].
const BUILT_IN: [(Table, &str); 6] = [
    (Table::Raw, "PREROUTING"),
    (Table::Raw, "OUTPUT"),
    (Table::Mangle, "PREROUTING"),
    (Table::Mangle, "OUTPUT"),
    (Table::Nat, "PREROUTING"),
    (Table::Nat, "OUTPUT"),
];

struct Loader {
    names: Vec<(Table, String)>,
    chains: Vec<Vec<Rule>>,
    /// The current table.
    table: Option<Table>,
}

impl Loader {
    fn read(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["*", table] => self.table = Some(parse_table(table)),
            ["COMMIT"] => self.table = None,
            ["-N", chain] => {
                assert!(self.find(chain).is_none(), "{chain} exists already");
                self.names.push((self.table(), chain.to_owned()));
                self.chains.push(Vec::new());
            }
            ["-A", chain, ref rule @ ..] => {
                let (chain, rule) = (self.chain(chain), self.rule(rule));
                self.chains[chain].push(rule);
            }
            ["-I", chain, position, ref rule @ ..] => {
                let (chain, rule) = (self.chain(chain), self.rule(rule));
                let position: usize = number(position);
                self.chains[chain].insert(position - 1, rule);
            }
            _ => panic!("unknown: {line}"),
        }
    }

    fn table(&self) -> Table {
        self.table.expect("no table before the first rule")
    }

    fn find(&self, chain: &str) -> Option<usize> {
        let table = self.table();
        self.names
            .iter()
            .position(|(other, name)| *other == table && name == chain)
    }

    fn chain(&self, name: &str) -> usize {
        self.find(name)
            .unwrap_or_else(|| panic!("no chain {name} in {:?}", self.table()))
    }

    fn rule(&self, words: &[&str]) -> Rule {
        let jump = words.iter().position(|word| *word == "-j");
        let (matches, target) = words.split_at(jump.expect("a rule has a target"));
        Rule {
            matches: parse_matches(matches),
            target: self.target(&target[1..]),
        }
    }

    fn target(&self, words: &[&str]) -> Target {
        match *words {
            ["RETURN"] => Target::Return,
            ["ACCEPT"] => Target::Accept,
            ["DROP"] => Target::Drop,
            ["REDIRECT", "--to-ports" | "--to-port", port] => {
                Target::Redirect { port: number(port) }
            }
            ["TPROXY", "--tproxy-mark", mark, "--on-port", port] => {
                let (value, bits) = mark.split_once('/').expect("a mask");
                Target::Tproxy {
                    port: number(port),
                    mark: number(value),
                    mask: hexadecimal(bits),
                }
            }
            ["MARK", "--set-mark", mark] => Target::SetMark(number(mark)),
            ["CONNMARK", "--save-mark"] => Target::SaveMark,
            ["CONNMARK", "--restore-mark"] => Target::RestoreMark,
            ["CT", "--zone", zone] => Target::Zone(number(zone)),
            [chain] => Target::Chain(self.chain(chain)),
            _ => panic!("unknown target: {words:?}"),
        }
    }
}

fn parse_table(name: &str) -> Table {
    match name {
        "raw" => Table::Raw,
        "mangle" => Table::Mangle,
        "nat" => Table::Nat,
        _ => panic!("unknown table {name}"),
    }
}

fn parse_matches(mut words: &[&str]) -> Vec<Match> {
    let mut matches = Vec::new();
    let mut module = "";
    loop {
        let expected = words.first() != Some(&"!");
        if !expected {
            words = &words[1..];
        }
        let [option, value, rest @ ..] = words else {
            assert!(words.is_empty() && expected, "incomplete: {words:?}");
            return matches;
        };
        if *option == "-m" {
            assert!(MODULES.contains(value), "unknown module {value}");
            module = value;
        } else {
            let test = parse_test(module, option, value);
            matches.push(Match { test, expected });
        }
        words = rest;
    }
}

const MODULES: [&str; 5] = ["connmark", "conntrack", "mark", "multiport", "owner"];

/// `--mark` belongs to two modules: it is that of the last named one.
fn parse_test(module: &str, option: &str, value: &str) -> Test {
    match option {
        "-i" => Test::InterfaceIn(value.to_owned()),
        "-o" => Test::InterfaceOut(value.to_owned()),
        "-s" => Test::Source(parse_cidr(value)),
        "-d" => Test::Destination(parse_cidr(value)),
        "-p" => Test::Protocol(match value {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => panic!("unknown protocol {value}"),
        }),
        "--dport" => Test::Port(vec![range(value, ':', 0, u16::MAX)]),
        "--dports" => Test::Port(
            value
                .split(',')
                .map(|port| range(port, ':', 0, u16::MAX))
                .collect(),
        ),
        "--sport" => Test::SourcePort(vec![range(value, ':', 0, u16::MAX)]),
        "--uid-owner" => Test::Uid(range(value, '-', 0, u32::MAX)),
        "--gid-owner" => Test::Gid(range(value, '-', 0, u32::MAX)),
        "--ctstate" => Test::State(value.split(',').filter_map(parse_state).collect()),
        "--mark" if module == "mark" => Test::Mark(number(value)),
        "--mark" if module == "connmark" => Test::Connmark(number(value)),
        _ => panic!("unknown match {option} {value}"),
    }
}

/// No connection here is related to another.
fn parse_state(name: &str) -> Option<State> {
    match name {
        "NEW" => Some(State::New),
        "ESTABLISHED" => Some(State::Established),
        "INVALID" => Some(State::Invalid),
        "RELATED" => None,
        _ => panic!("unknown state {name}"),
    }
}

fn parse_cidr(text: &str) -> Cidr {
    let (address, length) = text.split_once('/').expect("a CIDR has a /");
    Cidr {
        address: address
            .parse()
            .unwrap_or_else(|error| panic!("{text}: {error}")),
        length: number(length),
    }
}

/// `5`, `5:8`, `:8` or `5:`.
fn range<T: FromStr + Copy>(text: &str, between: char, first: T, last: T) -> RangeInclusive<T> {
    let end = |text: &str, default| {
        if text.is_empty() {
            default
        } else {
            number(text)
        }
    };
    match text.split_once(between) {
        Some((from, to)) => end(from, first)..=end(to, last),
        None => number(text)..=number(text),
    }
}

fn number<T: FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is not a number"))
}

fn hexadecimal(text: &str) -> u32 {
    let digits = text.strip_prefix("0x").expect("a hexadecimal number");
    u32::from_str_radix(digits, 16).unwrap_or_else(|error| panic!("{text}: {error}"))
}
