//! Settings in words.

use crate::settings::{
    DnsCapture, Mode, OwnerGroups, Settings, ports::PortSelection, prefixes::PrefixSelection,
};

/// Items of a list that are shown on the screen of one pod.
const MAX_ITEMS: usize = 20;

/// How much of a list is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lists {
    /// All of it, as settings have it.
    Full,
    /// Its start, with blanks between which a line can end.
    Start,
}

impl Lists {
    pub(super) fn join(self, items: &[impl ToString]) -> String {
        let text = |items: &[_]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
        match self {
            Self::Full => text(items).join(","),
            Self::Start => {
                let start = &items[..items.len().min(MAX_ITEMS)];
                let rest = match items.len() - start.len() {
                    0 => String::new(),
                    rest => format!(" and {rest} more"),
                };
                text(start).join(", ") + &rest
            }
        }
    }

    /// A list with its label, if it is not empty.
    fn labelled(self, label: &str, items: &[impl ToString]) -> String {
        if items.is_empty() {
            return String::new();
        }
        format!("{label}{}", self.join(items))
    }
}

pub(super) fn proxy(settings: &Settings, lists: Lists) -> String {
    format!(
        "uid {} gid {}",
        lists.join(settings.proxy_uids.as_slice()),
        lists.join(settings.proxy_gids.as_slice())
    )
}

/// Which inbound connections are captured.
pub(super) fn inbound(settings: &Settings, lists: Lists) -> String {
    let mut text = match &settings.inbound_ports {
        PortSelection::None => "none".to_owned(),
        PortSelection::All => {
            "all".to_owned() + &lists.labelled(" except ", &settings.inbound_ports_exclude)
        }
        PortSelection::Listed(ports) => lists.join(ports),
    };
    text += &lists.labelled(" except interfaces ", &settings.excluded_interfaces);
    if settings.mode == Mode::Tproxy {
        text += ", by TPROXY";
    }
    text
}

/// Which outbound connections are captured.
pub(super) fn outbound(settings: &Settings, lists: Lists) -> String {
    let mut text = match &settings.outbound_prefixes {
        PrefixSelection::All => "all".to_owned(),
        PrefixSelection::Listed(prefixes) if prefixes.is_empty() => "none".to_owned(),
        PrefixSelection::Listed(prefixes) => lists.join(prefixes),
    };
    text += &lists.labelled(" and ports ", &settings.outbound_ports);
    text += match &settings.dns {
        DnsCapture::Off => "",
        DnsCapture::Servers(_) => " and DNS to its servers",
        DnsCapture::All => " and all DNS",
    };
    for (label, excluded) in [
        (" except ", texts(&settings.outbound_prefixes_exclude)),
        (" except ports ", texts(&settings.outbound_ports_exclude)),
        (" except interfaces ", texts(&settings.excluded_interfaces)),
    ] {
        text += &lists.labelled(label, &excluded);
    }
    match &settings.owner_groups {
        OwnerGroups::AllBut(groups) => {
            text += &lists.labelled(" except groups ", groups.as_slice());
        }
        OwnerGroups::Only(groups) if groups.as_slice().is_empty() => "none".clone_into(&mut text),
        OwnerGroups::Only(groups) => text += &lists.labelled(" of groups ", groups.as_slice()),
    }
    text
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// Whether any inbound connection is captured.
pub(super) const fn captures_inbound(settings: &Settings) -> bool {
    match &settings.inbound_ports {
        PortSelection::All => true,
        PortSelection::Listed(ports) => !ports.is_empty(),
        PortSelection::None => false,
    }
}

/// Whether any outbound TCP connection is captured.
pub(super) fn captures_outbound(settings: &Settings) -> bool {
    let has_destinations = match &settings.outbound_prefixes {
        PrefixSelection::All => true,
        PrefixSelection::Listed(prefixes) => !prefixes.is_empty(),
    };
    let has_groups = match &settings.owner_groups {
        OwnerGroups::AllBut(_) => true,
        OwnerGroups::Only(groups) => !groups.as_slice().is_empty(),
    };
    has_groups && (has_destinations || !settings.outbound_ports.is_empty())
}

/// Which inbound connections are captured, in one or two words: for a table.
pub(super) fn inbound_in_short(settings: &Settings) -> String {
    let interfaces = settings.excluded_interfaces.len();
    match &settings.inbound_ports {
        PortSelection::All => all_but(settings.inbound_ports_exclude.len() + interfaces),
        PortSelection::Listed(ports) if !ports.is_empty() => counted(ports.len(), "port"),
        PortSelection::None | PortSelection::Listed(_) => "none".to_owned(),
    }
}

/// Which outbound connections are captured, in one or two words: for a table.
pub(super) fn outbound_in_short(settings: &Settings) -> String {
    let exceptions = settings.outbound_prefixes_exclude.len()
        + settings.outbound_ports_exclude.len()
        + settings.excluded_interfaces.len();
    let (groups, exceptions) = match &settings.owner_groups {
        OwnerGroups::Only(groups) if groups.as_slice().is_empty() => return "none".to_owned(),
        OwnerGroups::Only(groups) => (groups.as_slice().len(), exceptions),
        OwnerGroups::AllBut(groups) => (0, exceptions + groups.as_slice().len()),
    };
    let destinations = match &settings.outbound_prefixes {
        PrefixSelection::All => all_but(exceptions),
        PrefixSelection::Listed(prefixes) if !prefixes.is_empty() => {
            counted(prefixes.len(), "CIDR")
        }
        PrefixSelection::Listed(_) => match settings.outbound_ports.len() {
            0 => "none".to_owned(),
            ports => counted(ports, "port"),
        },
    };
    let dns = match settings.dns {
        DnsCapture::Off => "",
        DnsCapture::Servers(_) | DnsCapture::All => " +DNS",
    };
    match groups {
        0 => destinations + dns,
        groups => counted(groups, "group") + dns,
    }
}

fn all_but(exceptions: usize) -> String {
    match exceptions {
        0 => "all".to_owned(),
        exceptions => format!("all but {exceptions}"),
    }
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    #[test]
    fn settings_are_words() {
        let arguments = [
            "-b",
            "*",
            "-d",
            "15090,15021",
            "-i",
            "*",
            "-x",
            "10.0.0.0/8",
        ];
        let stock = settings(&arguments, &[]).unwrap();
        assert_eq!(inbound(&stock, Lists::Full), "all except 15090,15021");
        assert_eq!(inbound(&stock, Lists::Start), "all except 15090, 15021");
        assert_eq!(outbound(&stock, Lists::Full), "all except 10.0.0.0/8");
        assert_eq!(inbound_in_short(&stock), "all but 2");
        assert_eq!(outbound_in_short(&stock), "all but 1");
        let nothing = settings(&[], &[]).unwrap();
        assert_eq!(inbound_in_short(&nothing), "none");
        assert_eq!(outbound_in_short(&nothing), "none");
        for (settings, captures) in [(stock, true), (nothing, false)] {
            assert_eq!(captures_inbound(&settings), captures);
            assert_eq!(captures_outbound(&settings), captures);
        }
    }

    #[test]
    fn a_long_list_is_cut_on_the_screen_of_a_pod() {
        let ports: Vec<_> = (1..=23).map(|port: u16| port.to_string()).collect();
        let listed = settings(&["-b", &ports.join(",")], &[]).unwrap();
        assert_eq!(inbound(&listed, Lists::Full), ports.join(","));
        let start = ports[..20].join(", ") + " and 3 more";
        assert_eq!(inbound(&listed, Lists::Start), start);
        assert_eq!(inbound_in_short(&listed), "23 ports");
    }
}
