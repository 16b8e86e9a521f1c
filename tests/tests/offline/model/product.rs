//! The product's side: flags are parsed, compiled, and looked up in memory.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use clap::Parser;
use interceptor::{
    netns::{
        interfaces::PodInterface, localhost_routes::LocalhostRoutes, network::PodNetwork,
        stand_in_routes::Sources,
    },
    policy::CompiledPolicy,
    settings::{self, IstioFlags, ResolvConf},
};
use interceptor_ebpf::{
    Address, Flow, Inbound, InterfaceFlags, NetnsState, Outbound, Owner, Policy, PolicyLookups,
    PortFlags, PortPage, PortPageKey, PrefixFlags, Verdict, decide,
};
use interceptor_testkit::{model::LOOPBACK, settings::Settings};

use crate::model::flow::{Connection, INTERFACES};

const POLICY: u32 = 7;

/// The product's compiled settings.
pub(crate) struct Product {
    policy: Policy,
    lists: InMemory,
    interfaces: HashMap<&'static str, InterfaceFlags>,
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    flags: IstioFlags,
}

impl Product {
    pub(crate) fn new(settings: &Settings) -> Self {
        let compiled = CompiledPolicy::new(
            POLICY,
            &parse(settings),
            &network(settings),
            &Sources::default(),
        );
        let flags: HashMap<_, _> = compiled
            .interfaces
            .iter()
            .map(|(key, interface)| (key.index, interface.flags))
            .collect();
        let interfaces = (1..).zip(INTERFACES).map(|(index, name)| {
            let flags = flags.get(&index).copied();
            (name, flags.unwrap_or(InterfaceFlags::NONE))
        });
        Self {
            policy: compiled.policy,
            interfaces: interfaces.collect(),
            lists: InMemory::new(&compiled),
        }
    }

    pub(crate) fn verdict(&self, connection: &Connection) -> Verdict {
        decide(&self.policy, &self.lists, &self.flow(connection))
    }

    /// The port of the listener that gets a connection, if it is captured.
    pub(crate) fn captured(&self, connection: &Connection) -> Option<u16> {
        match self.verdict(connection) {
            Verdict::Capture(listener, _) => Some(listener.port(&self.policy)),
            Verdict::Pass(_) => None,
        }
    }

    fn flow(&self, connection: &Connection) -> Flow {
        let interface = self.interfaces[connection.interface];
        let by_excluded_interface = interface.contains(InterfaceFlags::EXCLUDED);
        let destination = Address::from(connection.destination);
        let (port, is_marked) = (connection.port, connection.is_marked);
        if connection.is_inbound {
            return Flow::Inbound(Inbound {
                destination,
                port,
                by_excluded_interface,
                by_rerouted_interface: interface.contains(InterfaceFlags::REROUTED),
            });
        }
        Flow::Outbound(Outbound {
            destination,
            port,
            transport: connection.transport,
            source: Address::from(connection.source),
            via_loopback: connection.interface == LOOPBACK,
            by_excluded_interface,
            is_marked,
            owner: connection
                .owner
                .map_or(Owner::NONE, |(uid, gid)| Owner { uid, gid }),
        })
    }
}

fn parse(settings: &Settings) -> settings::Settings {
    let flags = settings.flags();
    let arguments = ["attach".to_owned()].into_iter().chain(flags);
    let command = Command::try_parse_from(arguments).expect("flags");
    let environment = settings.environment();
    let resolv_conf = settings.resolv_conf().map(|text| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("a file");
        file
    });
    let path = resolv_conf.as_ref();
    let path = path.map(|file| ResolvConf::File(file.path().to_owned()));
    settings::Settings::from_flags_and(
        &command.flags,
        &|name| {
            let found = environment.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        },
        path.as_ref(),
    )
    .unwrap_or_else(|error| panic!("{settings}: {error}"))
    .settings
}

fn network(settings: &Settings) -> PodNetwork {
    let interfaces = (1..).zip(INTERFACES).map(|(index, name)| PodInterface {
        index,
        name: name.to_owned(),
        is_port: false,
        is_up: true,
        forwards: false,
    });
    PodNetwork {
        ipv6: settings.dual_stack,
        interfaces: interfaces.collect(),
        addresses: Vec::new(),
        routes: Vec::new(),
        limits: Vec::new(),
        state: NetnsState::default(),
        localhost: LocalhostRoutes::default(),
    }
}

/// The maps' contents.
struct InMemory {
    ports: Vec<(PortPageKey, PortPage)>,
    /// The longest prefix first.
    prefixes: Vec<(u128, u32, PrefixFlags)>,
    groups: HashSet<u32>,
}

impl InMemory {
    fn new(compiled: &CompiledPolicy) -> Self {
        let mut prefixes: Vec<_> = compiled
            .prefixes
            .iter()
            .map(|(key, length, flags)| (bits(key.address), u32::from(*length), *flags))
            .collect();
        prefixes.sort_by_key(|(_, length, _)| std::cmp::Reverse(*length));
        Self {
            ports: compiled.ports.clone(),
            prefixes,
            groups: compiled.groups.iter().map(|key| key.gid).collect(),
        }
    }
}

/// An address's bits in the order of a prefix.
fn bits(address: Address) -> u128 {
    let words = address.words().map(u32::from_be);
    words
        .into_iter()
        .fold(0, |bits, word| bits << 32 | u128::from(word))
}

impl PolicyLookups for InMemory {
    fn port_flags(&self, port: u16) -> PortFlags {
        let key = PortPageKey::of(POLICY, port);
        let page = self.ports.iter().find(|(other, _)| *other == key);
        page.map_or(PortFlags::NONE, |(_, page)| page.flags(port))
    }

    fn prefix_flags(&self, address: Address) -> PrefixFlags {
        let address = bits(address);
        let found = self.prefixes.iter().find(|(prefix, length, _)| {
            (prefix ^ address).checked_shr(128 - length).unwrap_or(0) == 0
        });
        found.map_or(PrefixFlags::NONE, |(_, _, flags)| *flags)
    }

    fn has_group(&self, gid: u32) -> bool {
        self.groups.contains(&gid)
    }
}
