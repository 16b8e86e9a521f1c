//! Random connections and queries between the actors of a world.

use std::fmt;

use anyhow::Result;
use proptest::{
    option,
    prelude::any,
    prop_oneof,
    sample::select,
    strategy::{BoxedStrategy, Just, Strategy},
};

use super::mostly;
use crate::{
    actor::protocol::SocketOption,
    scenario::{ConnectMode, Dial, Query, Run, Sending},
    settings::{Mode, Settings, items},
    world::Role,
};

/// The ports of listeners and of settings.
pub(super) const PORTS: [u16; 16] = [
    80, 22, 53, 81, 443, 8080, 9090, 15001, 15002, 15006, 15008, 15020, 15021, 15053, 15090, 16006,
];

/// Destinations outside the pod, by different routes.
const REMOTE: [Twins; 8] = [
    ("10.2.0.9", "fd00:2::9"),
    ("10.2.0.10", "fd00:2::10"),
    ("10.96.0.10", "fd00:96::10"),
    ("10.1.0.1", "fd00:1::1"),
    ("10.4.0.1", "fd00:4::1"),
    ("10.8.0.1", "fd00:8::1"),
    ("10.9.0.1", "fd00:9::1"),
    ("198.51.100.9", "2001:db8::9"),
];

/// The pod's own addresses.
const OWN: [Twins; 3] = [
    ("10.1.0.2", "fd00:1::2"),
    ("10.1.0.3", "fd00:1::3"),
    ("10.3.0.2", "fd00:3::2"),
];

const LOOPBACK: [Twins; 6] = [
    ("127.0.0.1", "::1"),
    ("127.0.0.2", "::1"),
    ("127.0.0.6", "::6"),
    ("127.0.0.53", "::1"),
    ("127.1.2.3", "::1"),
    ("0.0.0.0", "::"),
];

/// Unroutable destinations.
const NOWHERE: [Twins; 4] = [
    ("10.66.1.1", "fd00:66:1::1"),
    ("10.66.2.1", "fd00:66:2::1"),
    ("10.66.3.1", "fd00:66:3::1"),
    ("224.0.0.1", "ff0e::1"),
];

/// Servers that reply to datagrams.
const UDP_SERVERS: [Twins; 6] = [
    ("10.96.0.10", "fd00:96::10"),
    ("10.2.0.9", "fd00:2::9"),
    ("10.1.0.1", "fd00:1::1"),
    ("10.1.0.2", "fd00:1::2"),
    ("127.0.0.1", "::1"),
    ("127.0.0.53", "::1"),
];

/// Source addresses for connections to the pod itself, besides its own addresses. Outside, no host
/// replies to these, and the timeout takes long.
const LOOPBACK_SOURCES: [Twins; 3] = [
    ("127.0.0.1", "::1"),
    ("127.0.0.2", "::1"),
    ("127.0.0.6", "::6"),
];

/// Source addresses of a client.
const CLIENTS: [Twins; 3] = [
    ("10.1.0.1", "fd00:1::1"),
    ("10.2.0.9", "fd00:2::9"),
    ("10.3.0.1", "fd00:3::1"),
];

/// An IPv4 address, and its IPv6 counterpart.
type Twins = (&'static str, &'static str);

/// The notation of addresses.
#[derive(Clone, Copy, Debug)]
enum Notation {
    V4,
    V6,
    /// IPv4 with an IPv6 socket.
    Mapped,
}

/// A connection or a query.
#[derive(Clone, Debug)]
pub struct Flow {
    role: Role,
    kind: Kind,
    from: Option<String>,
    to: String,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Connection(ConnectMode),
    /// An upstream connection of a proxy that keeps the client's address: from that address, with
    /// the mark of TPROXY.
    Upstream {
        mark: u32,
    },
    Query {
        is_connected: bool,
    },
}

/// Any connection or query under these settings.
pub fn flows(settings: &Settings) -> impl Strategy<Value = Flow> + use<> {
    // A proxy makes them for captured connections. Behind iptables no host replies to them where
    // TPROXY's routes and marks are missing, or where `nat` treats them as the proxy's calls of its
    // own pod, and the timeout takes long.
    let is_given = settings.mode == Mode::Tproxy
        && !settings.inbound_ports.is_empty()
        && settings.excluded_interfaces.is_empty()
        && !items(settings.uids).any(|uid| uid == "0")
        && !items(settings.outbound_cidrs)
            .any(|cidr| cidr.starts_with("127.") || cidr.starts_with("::1/"));
    let upstream = u32::from(is_given);
    prop_oneof![
        12 => outbound(),
        4 => inbound(),
        6 => queries(),
        upstream => upstreams(settings),
    ]
}

fn outbound() -> impl Strategy<Value = Flow> {
    let mode = || {
        mostly(ConnectMode::Blocking, 6, Just(ConnectMode::NonBlocking)).prop_map(Kind::Connection)
    };
    let out = prop_oneof![
        6 => select(REMOTE.to_vec()),
        1 => select(NOWHERE.to_vec()),
    ];
    let to_itself = select([&OWN[..], &LOOPBACK].concat());
    prop_oneof![
        8 => flow(insiders(), mode().boxed(), out.boxed(), ports(), OWN.to_vec()),
        8 => flow(insiders(), mode().boxed(), to_itself.boxed(), ports(), all_sources()),
        1 => flow(insiders(), mode().boxed(), select(REMOTE.to_vec()).boxed(), ports(), all_sources()),
    ]
}

fn all_sources() -> Vec<Twins> {
    [&OWN[..], &LOOPBACK_SOURCES].concat()
}

fn inbound() -> impl Strategy<Value = Flow> {
    let mode = Just(Kind::Connection(ConnectMode::Blocking));
    let to = select(OWN.to_vec());
    let role = Just(Role::Client);
    flow(
        role.boxed(),
        mode.boxed(),
        to.boxed(),
        ports(),
        CLIENTS.to_vec(),
    )
}

fn upstreams(settings: &Settings) -> impl Strategy<Value = Flow> + use<> {
    let mark = settings.tproxy_mark;
    let role = select(vec![Role::ProxyGid, Role::Root]);
    let port = select(vec![80, 8080, 15020]);
    let v6 = u32::from(settings.dual_stack);
    let notation = prop_oneof![1 => Just(Notation::V4), v6 => Just(Notation::V6)];
    let (from, to) = (select(CLIENTS.to_vec()), select(OWN.to_vec()));
    (role, port, notation, from, to).prop_map(move |(role, port, notation, from, to)| Flow {
        role,
        kind: Kind::Upstream { mark },
        from: Some(notation.write(from, 0)),
        to: notation.write(to, port),
    })
}

fn queries() -> impl Strategy<Value = Flow> {
    let kind = any::<bool>().prop_map(|is_unconnected| Kind::Query {
        is_connected: !is_unconnected,
    });
    let to = select(UDP_SERVERS.to_vec());
    let port = mostly(53, 4, Just(5353));
    flow(insiders(), kind.boxed(), to.boxed(), port, OWN.to_vec())
}

fn insiders() -> BoxedStrategy<Role> {
    prop_oneof![
        4 => Just(Role::App),
        1 => Just(Role::Root),
        2 => Just(Role::Proxy),
        1 => Just(Role::ProxyUid),
        2 => Just(Role::ProxyGid),
    ]
    .boxed()
}

fn ports() -> BoxedStrategy<u16> {
    mostly(80, 1, select(PORTS.to_vec()))
}

fn flow(
    role: BoxedStrategy<Role>,
    kind: BoxedStrategy<Kind>,
    to: BoxedStrategy<Twins>,
    port: BoxedStrategy<u16>,
    sources: Vec<Twins>,
) -> impl Strategy<Value = Flow> {
    let from = option::weighted(0.2, select(sources));
    let notation = prop_oneof![
        3 => Just(Notation::V4),
        3 => Just(Notation::V6),
        1 => Just(Notation::Mapped),
    ];
    (role, kind, from, to, port, notation).prop_map(|(role, kind, from, to, port, notation)| {
        let from = from.map(|from| notation.write(from, 0));
        let port = open_port(port, notation, from.as_deref(), to);
        Flow {
            role,
            kind,
            from,
            to: notation.write(to, port),
        }
    })
}

/// A port that is open if the client is one that a reset may not reach (the known difference
/// `a_reset_that_does_not_reach_its_client`).
fn open_port(port: u16, notation: Notation, from: Option<&str>, to: Twins) -> u16 {
    let is_from_loopback = from == Some("[::1]:0");
    let is_to_own_address = matches!(notation, Notation::V6) && OWN.contains(&to);
    if is_from_loopback && is_to_own_address {
        80
    } else {
        port
    }
}

impl Notation {
    fn write(self, (v4, v6): Twins, port: u16) -> String {
        match self {
            Self::V4 => format!("{v4}:{port}"),
            Self::V6 => format!("[{v6}]:{port}"),
            Self::Mapped => format!("[::ffff:{v4}]:{port}"),
        }
    }
}

impl Flow {
    /// Makes the connection or sends the query, and records all observations.
    pub fn execute(&self, run: &mut Run<'_>) -> Result<()> {
        match self.kind {
            Kind::Connection(mode) => self.dial().mode(mode).execute(run).map(drop),
            Kind::Upstream { .. } => {
                let options = self.options().into_iter();
                let dial = options.fold(self.dial(), Dial::with);
                dial.execute(run).map(drop)
            }
            Kind::Query { is_connected } => {
                let mut query = Query::new(self.role, &self.to, sending(is_connected));
                if let Some(from) = &self.from {
                    query = query.from(from);
                }
                query.execute(run).map(drop)
            }
        }
    }

    fn dial(&self) -> Dial {
        let dial = Dial::new(self.role, &self.to);
        match &self.from {
            Some(from) => dial.from(from),
            None => dial,
        }
    }

    fn options(&self) -> Vec<SocketOption> {
        let Kind::Upstream { mark } = self.kind else {
            return Vec::new();
        };
        let transparent = if self.to.starts_with('[') {
            SocketOption::TransparentV6
        } else {
            SocketOption::Transparent
        };
        vec![transparent, SocketOption::Mark(mark)]
    }

    /// The client's role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }
}

const fn sending(is_connected: bool) -> Sending {
    if is_connected {
        Sending::Connected
    } else {
        Sending::Unconnected
    }
}

/// As the source of a test.
impl fmt::Display for Flow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            role,
            kind,
            from,
            to,
        } = self;
        match kind {
            Kind::Connection(_) | Kind::Upstream { .. } => {
                write!(formatter, "Dial::new(Role::{role:?}, {to:?})")?;
            }
            Kind::Query { is_connected } => {
                let sending = sending(*is_connected);
                write!(
                    formatter,
                    "Query::new(Role::{role:?}, {to:?}, Sending::{sending:?})"
                )?;
            }
        }
        if let Some(from) = from {
            write!(formatter, ".from({from:?})")?;
        }
        for option in self.options() {
            write!(formatter, ".with(SocketOption::{option:?})")?;
        }
        match kind {
            Kind::Connection(ConnectMode::Blocking)
            | Kind::Upstream { .. }
            | Kind::Query { .. } => Ok(()),
            Kind::Connection(mode) => write!(formatter, ".mode(ConnectMode::{mode:?})"),
        }
    }
}
