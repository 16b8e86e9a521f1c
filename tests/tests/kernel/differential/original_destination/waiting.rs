//! Clients that wait to be accepted by a proxy that follows the test's requests only.

use anyhow::Result;
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Handle, Protocol, Reply, Request, SocketOption},
    },
    scenario::{Run, address},
    world::{Role, Setup},
};

/// No proxy but the one that the scenarios create themselves.
pub(super) fn manual() -> Setup {
    Setup {
        proxy: &[],
        ..Setup::default()
    }
}

/// A client's role, its destination, and the proxy's listener for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingDial {
    pub(super) role: Role,
    pub(super) to: &'static str,
    pub(super) listener: &'static str,
}

pub(super) const DIALS: [WaitingDial; 9] = [
    dial(Role::App, "10.2.0.9:80", "0.0.0.0:15001"),
    dial(Role::App, "10.2.0.9:80", "[::]:15001"),
    dial(Role::App, "[::ffff:10.2.0.9]:80", "0.0.0.0:15001"),
    dial(Role::App, "[fd00:2::9]:80", "[::]:15001"),
    dial(Role::Proxy, "10.1.0.2:80", "0.0.0.0:15006"),
    dial(Role::Proxy, "[fd00:1::2]:80", "[::]:15006"),
    dial(Role::Client, "10.1.0.2:8080", "0.0.0.0:15006"),
    dial(Role::Client, "10.1.0.2:8080", "[::]:15006"),
    dial(Role::Client, "[fd00:1::2]:8080", "[::]:15006"),
];

const fn dial(role: Role, to: &'static str, listener: &'static str) -> WaitingDial {
    WaitingDial { role, to, listener }
}

/// A connected client, and the proxy's listener that has not accepted it.
pub(super) struct Waiting<'a> {
    pub(super) client: &'a Actor,
    pub(super) socket: Handle,
    pub(super) proxy: &'a Actor,
    pub(super) listener: Handle,
    from_outside: bool,
}

impl Waiting<'_> {
    pub(super) fn new<'a>(run: &mut Run<'a>, dial: WaitingDial) -> Result<Waiting<'a>> {
        let (client, proxy) = (run.actor(dial.role)?, run.actor(Role::ProxyServer)?);
        let listener = proxy.listen(address(dial.listener))?;
        let to = address(dial.to);
        let socket = client.socket(Family::of(to), Protocol::Tcp)?;
        let request = Request::Connect {
            socket,
            address: to,
        };
        run.perform("connect", client, &request)?;
        Ok(Waiting {
            client,
            socket,
            proxy,
            listener,
            from_outside: dial.role.is_outside(),
        })
    }

    /// Another client of the same listener.
    pub(super) fn new_on<'a>(
        run: &mut Run<'a>,
        dial: WaitingDial,
        first: &Waiting<'a>,
    ) -> Result<Waiting<'a>> {
        let to = address(dial.to);
        let socket = first.client.socket(Family::of(to), Protocol::Tcp)?;
        let request = Request::Connect {
            socket,
            address: to,
        };
        run.perform("connect", first.client, &request)?;
        Ok(Waiting { socket, ..*first })
    }

    pub(super) fn close(&self) -> Result<Reply> {
        let socket = self.socket;
        self.client.must(&Request::Close { socket })
    }

    pub(super) fn reset(&self) -> Result<Reply> {
        let (socket, option) = (self.socket, SocketOption::ResetOnClose);
        self.client.must(&Request::Set { socket, option })?;
        self.close()
    }

    /// Accepts and records all observations.
    pub(super) fn accept(&self, run: &mut Run<'_>) -> Result<Option<Handle>> {
        let socket = self.listener;
        let reply = run.perform("accept", self.proxy, &Request::Accept { socket })?;
        let Reply::Socket(accepted) = reply else {
            return Ok(None);
        };
        self.record(run, accepted)?;
        Ok(Some(accepted))
    }

    /// Records the proxy's observations of an accepted socket; the local name of an inbound one may
    /// differ (and is compared where that is done exactly, with the identity servers).
    pub(super) fn record(&self, run: &mut Run<'_>, socket: Handle) -> Result<()> {
        if self.from_outside {
            run.perform("peer", self.proxy, &Request::PeerName { socket })?;
            return run.record_original(self.proxy, socket);
        }
        run.record_names(self.proxy, socket)
    }
}
