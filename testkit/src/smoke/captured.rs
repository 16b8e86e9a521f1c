//! The expected properties of connections while the pod is captured, and when it is not.

use std::{
    fmt::Debug,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Socket};

use super::{
    namespace::Namespace,
    stage::{APP_PORT, EXCLUDED_PORT, PROXY, REMOTE_PORT, Stage, UNUSED_PORT},
    tcp::{self, User},
};
use crate::{actor::protocol::Family, original::original_destination};

const APP: User = User {
    uid: 1000,
    gid: 1000,
};
const CLIENT: User = User { uid: 0, gid: 0 };
/// The proxy, identified by its UID, and by its GID.
const PROXIES: [User; 2] = [PROXY, User { uid: 0, gid: 1337 }];

const POD_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const REMOTE_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const POD_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2);
const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);

/// A family of addresses, and the sockets for it.
struct SocketKind {
    name: &'static str,
    domain: Domain,
    pod: IpAddr,
    remote: IpAddr,
    /// The family of the proxy's listener.
    family: Family,
}

const KINDS: [SocketKind; 3] = [
    SocketKind {
        name: "IPv4",
        domain: Domain::IPV4,
        pod: IpAddr::V4(POD_V4),
        remote: IpAddr::V4(REMOTE_V4),
        family: Family::V4,
    },
    SocketKind {
        name: "IPv6",
        domain: Domain::IPV6,
        pod: IpAddr::V6(POD_V6),
        remote: IpAddr::V6(REMOTE_V6),
        family: Family::V6,
    },
    SocketKind {
        name: "IPv4 through IPv6",
        domain: Domain::IPV6,
        pod: IpAddr::V4(POD_V4),
        remote: IpAddr::V4(REMOTE_V4),
        family: Family::V4,
    },
];

/// Outbound and inbound connections reach the proxy, with the right addresses; all other
/// connections pass.
pub(super) fn expect_captured(stage: &Stage) -> Result<()> {
    for_each_kind(|kind| {
        outbound_is_captured(stage, kind).context("outbound")?;
        inbound_is_captured(stage, kind).context("inbound")?;
        forwarded_is_captured(stage, kind).context("forwarded")?;
        the_rest_is_passed(stage, kind)
    })
}

/// The same in strict mode, which refuses forwarded connections.
pub(super) fn expect_captured_strictly(stage: &Stage) -> Result<()> {
    for_each_kind(|kind| {
        outbound_is_captured(stage, kind).context("outbound")?;
        inbound_is_captured(stage, kind).context("inbound")?;
        the_rest_is_passed(stage, kind)
    })
}

/// Without listeners, a captured connection is refused.
pub(super) fn expect_refused(stage: &Stage) -> Result<()> {
    for_each_kind(|kind| {
        let remote = SocketAddr::new(kind.remote, REMOTE_PORT);
        kind.is_refused(&stage.pod, APP, remote)?;
        kind.is_refused(&stage.inner, CLIENT, remote)?;
        let app = SocketAddr::new(kind.pod, APP_PORT);
        kind.is_refused(&stage.outside, CLIENT, app)?;
        the_rest_but_the_proxy_is_passed(stage, kind)
    })
}

/// All connections reach their destination.
pub(super) fn expect_not_captured(stage: &Stage) -> Result<()> {
    for_each_kind(|kind| {
        let remote = SocketAddr::new(kind.remote, REMOTE_PORT);
        kind.reaches(&stage.pod, APP, remote, &stage.remote)?;
        kind.reaches(&stage.inner, CLIENT, remote, &stage.remote)?;
        let app = SocketAddr::new(kind.pod, APP_PORT);
        kind.reaches(&stage.outside, CLIENT, app, &stage.app)
    })
}

/// The pod has other addresses than when it was attached: only the current ones are its own.
pub(super) fn expect_captured_renumbered(stage: &Stage) -> Result<()> {
    for_each_kind(|kind| {
        let lost = SocketAddr::new(kind.pod, APP_PORT);
        let remote = SocketAddr::new(kind.remote, REMOTE_PORT);
        for to in [lost, remote] {
            let dialled = kind.dial(&stage.pod, APP, to)?;
            kind.reaches_proxy(&stage.proxy.outbound, &dialled, to)?;
        }
        let kind = kind.renumbered();
        inbound_is_captured(stage, &kind).context("inbound")?;
        the_rest_is_passed(stage, &kind)
    })
}

/// TPROXY's proxy reaches the app from a client's address, and is refused where the app does not
/// listen.
pub(super) fn expect_calls_in_a_clients_name(stage: &Stage) -> Result<()> {
    for_each_kind(|kind| {
        let dial = |port| {
            let to = match kind.domain {
                Domain::IPV6 => tcp::mapped(SocketAddr::new(kind.pod, port)),
                _ => SocketAddr::new(kind.pod, port),
            };
            let client = match (to, kind.remote) {
                (SocketAddr::V6(_), IpAddr::V4(v4)) => v4.to_ipv6_mapped().into(),
                (_, client) => client,
            };
            tcp::dial_from(client, &stage.pod, PROXIES[1], to)
        };
        let dialled = dial(APP_PORT)?.context("the app is not reached")?;
        let (accepted, _) = stage.app.accept().context("another server is reached")?;
        let peer = tcp::peer_name(&accepted)?;
        ensure_equal("client", peer, tcp::local_name(&dialled)?)?;
        ensure_equal("the client's address", peer.ip(), kind.remote)?;
        match dial(UNUSED_PORT)? {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            other => bail!("expected ECONNREFUSED: {other:?}"),
        }
    })
}

fn for_each_kind(expect: impl Fn(&SocketKind) -> Result<()>) -> Result<()> {
    KINDS
        .iter()
        .try_for_each(|kind| expect(kind).context(kind.name))
}

fn outbound_is_captured(stage: &Stage, kind: &SocketKind) -> Result<()> {
    let to = SocketAddr::new(kind.remote, REMOTE_PORT);
    let dialled = kind.dial(&stage.pod, APP, to)?;
    ensure_equal("source", tcp::local_name(&dialled)?.ip(), kind.pod)?;
    ensure_equal("the app's getpeername", tcp::peer_name(&dialled)?, to)?;
    kind.reaches_proxy(&stage.proxy.outbound, &dialled, to)
}

fn inbound_is_captured(stage: &Stage, kind: &SocketKind) -> Result<()> {
    let to = SocketAddr::new(kind.pod, APP_PORT);
    for (netns, user) in [(&stage.outside, CLIENT), (&stage.pod, PROXY)] {
        let dialled = kind.dial(netns, user, to)?;
        ensure_equal("getpeername", tcp::peer_name(&dialled)?, to)?;
        kind.reaches_proxy(&stage.proxy.inbound, &dialled, to)?;
    }
    Ok(())
}

fn forwarded_is_captured(stage: &Stage, kind: &SocketKind) -> Result<()> {
    let to = SocketAddr::new(kind.remote, REMOTE_PORT);
    let dialled = kind.dial(&stage.inner, CLIENT, to)?;
    ensure_equal("getpeername", tcp::peer_name(&dialled)?, to)?;
    kind.reaches_proxy(&stage.proxy.inbound, &dialled, to)
}

fn the_rest_is_passed(stage: &Stage, kind: &SocketKind) -> Result<()> {
    the_rest_but_the_proxy_is_passed(stage, kind)?;
    for proxy in PROXIES {
        let remote = SocketAddr::new(kind.remote, REMOTE_PORT);
        kind.reaches(&stage.pod, proxy, remote, &stage.remote)?;
    }
    Ok(())
}

fn the_rest_but_the_proxy_is_passed(stage: &Stage, kind: &SocketKind) -> Result<()> {
    let app = SocketAddr::new(kind.pod, APP_PORT);
    kind.reaches(&stage.pod, APP, app, &stage.app)?;
    let localhost = match kind.pod {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let localhost = SocketAddr::new(localhost, APP_PORT);
    kind.reaches(&stage.pod, APP, localhost, &stage.app)?;
    let excluded = SocketAddr::new(kind.pod, EXCLUDED_PORT);
    kind.reaches(&stage.outside, CLIENT, excluded, &stage.excluded)
}

impl SocketKind {
    /// The same for a pod with other addresses.
    const fn renumbered(&self) -> Self {
        let pod = match self.pod {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(10, 1, 0, 8)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 8)),
        };
        Self { pod, ..*self }
    }

    fn try_dial(
        &self,
        netns: &Namespace,
        user: User,
        to: SocketAddr,
    ) -> Result<io::Result<Socket>> {
        let written = match self.domain {
            Domain::IPV6 => tcp::mapped(to),
            _ => to,
        };
        tcp::dial(netns, user, self.domain, written)
    }

    fn dial(&self, netns: &Namespace, user: User, to: SocketAddr) -> Result<Socket> {
        self.try_dial(netns, user, to)?
            .with_context(|| format!("{user:?} dials {to}"))
    }

    fn is_refused(&self, netns: &Namespace, user: User, to: SocketAddr) -> Result<()> {
        match self.try_dial(netns, user, to)? {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{user:?} dials {to}")),
            Ok(_) => bail!("{user:?} dials {to}: it is not refused"),
        }
    }

    /// The next connection that `server` accepts must be the one that is dialled here.
    fn reaches(
        &self,
        netns: &Namespace,
        user: User,
        to: SocketAddr,
        server: &Socket,
    ) -> Result<()> {
        let dialled = self.dial(netns, user, to)?;
        let (accepted, _) = server.accept().with_context(|| {
            format!("{user:?} dials {to}, but does not reach the expected server")
        })?;
        ensure_equal(
            "client",
            tcp::peer_name(&accepted)?,
            tcp::local_name(&dialled)?,
        )?;
        ensure_equal("getpeername", tcp::peer_name(&dialled)?, to)
    }

    /// The next connection that the proxy accepts must be the one that was dialled.
    fn reaches_proxy(
        &self,
        listeners: &[Socket],
        dialled: &Socket,
        original: SocketAddr,
    ) -> Result<()> {
        let listener = match self.family {
            Family::V4 => &listeners[0],
            Family::V6 => &listeners[1],
        };
        let (accepted, _) = listener.accept().context("the proxy is not reached")?;
        let client = tcp::local_name(dialled)?;
        ensure_equal("the proxy's client", tcp::peer_name(&accepted)?, client)?;
        let found = original_destination(&accepted, self.family).context("SO_ORIGINAL_DST")?;
        ensure_equal("SO_ORIGINAL_DST", found, original)
    }
}

fn ensure_equal<T: Copy + Debug + PartialEq>(what: &str, found: T, expected: T) -> Result<()> {
    ensure!(
        found == expected,
        "{what}: {found:?}, expected {expected:?}"
    );
    Ok(())
}
