//! Verifies from inside a pod, without privileges, that it is captured, as istio-validation does.
//!
//! It opens connections that must be captured until one arrives at the proxy's port with the expected
//! `SO_ORIGINAL_DST`. In the meantime it listens on the proxy's ports itself.

use std::{
    fmt, io, iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt},
    unistd::{Gid, Uid, setfsgid, setfsuid},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    settings::{Settings, control::Validation, ports::PortRange, prefixes::PrefixSelection},
    stdio::message,
};

/// The time that one connection has to arrive before the next attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Documentation addresses, which no host has (RFC 5737, RFC 3849).
const UNASSIGNED: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

impl Validation {
    /// Waits until a captured connection arrives. `local` is the pod's first address.
    pub(crate) fn wait(&self, settings: &Settings, local: IpAddr) -> Result<()> {
        let ipv6 = local.is_ipv6();
        let listeners = Listeners::open(settings, ipv6)?;
        let connection = TestConnection::choose(settings, self.port, ipv6)?;
        let deadline = Instant::now() + self.timeout;
        let mut last = None;
        while Instant::now() < deadline {
            let next = deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
            let client = connection.dial();
            if listeners.wait_for(self.port, next)? {
                return Ok(());
            }
            last = Some(problem(client));
        }
        bail!(
            "no test connection {connection} has arrived at {} within {:?}{}",
            listeners.names(),
            self.timeout,
            last.map(|last| format!(" (the last attempt: {last})"))
                .unwrap_or_default()
        )
    }
}

/// Why a connection did not arrive.
fn problem(client: io::Result<Socket>) -> String {
    match client.and_then(|socket| socket.take_error()) {
        Ok(None) => "not captured, or no response".to_owned(),
        Ok(Some(error)) | Err(error) => error.to_string(),
    }
}

/// The sockets at which captured connections arrive.
struct Listeners(Vec<(SocketAddr, Socket)>);

impl Listeners {
    /// One is enough, as in istio-validation: the proxy may listen on the other port.
    fn open(settings: &Settings, ipv6: bool) -> Result<Self> {
        let ports = [settings.outbound_port, settings.inbound_port];
        let addresses = ports.map(|port| SocketAddr::new(localhost(ipv6), port));
        let mut open = Vec::new();
        let mut problems = Vec::new();
        for address in addresses {
            match listen(address) {
                Ok(socket) => open.push((address, socket)),
                Err(error) => problems.push(format!("{address}: {error}")),
            }
        }
        let problems = problems.join(", ");
        if open.is_empty() {
            bail!("cannot bind the proxy's ports: {problems}");
        }
        if !problems.is_empty() {
            message!("interceptor: cannot bind one of the proxy's ports: {problems}");
        }
        Ok(Self(open))
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|(name, _)| name.to_string()).collect();
        names.join(" or ")
    }

    /// Whether a connection with the original destination port `port` arrives before `deadline`.
    fn wait_for(&self, port: u16, deadline: Instant) -> Result<bool> {
        loop {
            for (_, listener) in &self.0 {
                if arrivals(listener).any(|destination| destination == Some(port)) {
                    return Ok(true);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.sleep(left)?;
        }
    }

    /// Sleeps until a connection arrives, or `left` has passed.
    fn sleep(&self, left: Duration) -> Result<()> {
        let mut waited: Vec<_> = self
            .0
            .iter()
            .map(|(_, listener)| PollFd::new(listener.as_fd(), PollFlags::POLLIN))
            .collect();
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut waited, left) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).context("cannot wait for connections"),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket)
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))
}

/// The original destination ports of the connections that have arrived.
fn arrivals(listener: &Socket) -> impl Iterator<Item = Option<u16>> {
    iter::from_fn(|| listener.accept().ok()).map(|(connection, _)| original_port(&connection).ok())
}

fn original_port(connection: &Socket) -> nix::Result<u16> {
    let is_ipv4 = connection
        .local_addr()
        .is_ok_and(|address| address.is_ipv4());
    let port = if is_ipv4 {
        getsockopt(connection, sockopt::OriginalDst)?.sin_port
    } else {
        getsockopt(connection, sockopt::Ip6tOriginalDst)?.sin6_port
    };
    Ok(u16::from_be(port))
}

const fn localhost(ipv6: bool) -> IpAddr {
    if ipv6 {
        IpAddr::V6(Ipv6Addr::LOCALHOST)
    } else {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
}

/// The source address of Envoy's connections to the app: no process listens on it.
const fn passthrough(ipv6: bool) -> IpAddr {
    if ipv6 {
        IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6))
    } else {
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6))
    }
}

/// A connection that must be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TestConnection {
    /// From the proxy to the pod itself, which is redirected to the proxy as inbound.
    OfProxy {
        proxy: Proxy,
        from: SocketAddr,
        to: SocketAddr,
    },
    /// From an app to a destination that is captured outbound, for processes that cannot switch to the
    /// proxy's IDs, such as istio-init: their connections to the pod itself pass.
    OfApp { to: SocketAddr },
}

impl fmt::Display for TestConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfProxy { proxy, to, .. } => {
                write!(formatter, "of {proxy} to {to}")
            }
            Self::OfApp { to } => write!(formatter, "to {to}"),
        }
    }
}

impl TestConnection {
    fn choose(settings: &Settings, port: u16, ipv6: bool) -> Result<Self> {
        if let Some(proxy) = Proxy::of(settings)
            && proxy.can_switch_to()
        {
            return Ok(Self::OfProxy {
                proxy,
                from: SocketAddr::new(localhost(ipv6), 0),
                to: SocketAddr::new(passthrough(ipv6), port),
            });
        }
        let to = captured_destination(settings, port, ipv6).context(
            "this process is not permitted to switch to the proxy's UID, and these settings capture \
             none of its own connections: run as the proxy's user, or with CAP_SETUID and \
             CAP_SETGID",
        )?;
        let to = SocketAddr::new(to, port);
        Ok(Self::OfApp { to })
    }

    /// Starts to connect.
    fn dial(self) -> io::Result<Socket> {
        let (socket, to) = match self {
            Self::OfProxy { proxy, from, to } => {
                let socket = proxy.run(|| tcp(to))?;
                socket.bind(&from.into())?;
                (socket, to)
            }
            Self::OfApp { to } => (tcp(to)?, to),
        };
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket),
        }
    }
}

/// The IDs by which the rules recognize the proxy: the first UID, whose rules precede all others, and the
/// first GID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proxy {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uid, self.gid) {
            (Some(uid), _) => write!(formatter, "UID {uid}"),
            (None, Some(gid)) => write!(formatter, "GID {gid}"),
            (None, None) => write!(formatter, "no user"),
        }
    }
}

impl Proxy {
    /// `None` if the proxy has no IDs.
    fn of(settings: &Settings) -> Option<Self> {
        let first = |ids: &[u32]| ids.first().copied();
        let uid = first(settings.proxy_uids.as_slice());
        let gid = first(settings.proxy_gids.as_slice());
        (uid.is_some() || gid.is_some()).then_some(Self { uid, gid })
    }

    /// Runs `work` in a thread with the proxy's file system IDs, which become the owner of its sockets.
    /// Without permission, the thread keeps its IDs.
    fn run<T: Send>(self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                // The group first: after the change of the user it may not be permitted.
                if let Some(gid) = self.gid {
                    setfsgid(Gid::from_raw(gid));
                }
                if let Some(uid) = self.uid {
                    setfsuid(Uid::from_raw(uid));
                }
                work()
            });
            worker
                .join()
                .map_err(|_| io::Error::other("the connecting thread panicked"))?
        })
    }

    /// Whether [`Self::run`] can switch to the proxy's IDs. A GID is not enough without the UID: the rules
    /// of UIDs come first.
    fn can_switch_to(self) -> bool {
        // An invalid ID changes nothing, and the current ID is returned.
        const NO_ID: u32 = u32::MAX;
        let has_switched = self.run(|| {
            let uid = setfsuid(Uid::from_raw(NO_ID)).as_raw();
            let gid = setfsgid(Gid::from_raw(NO_ID)).as_raw();
            Ok(self
                .uid
                .map_or(self.gid == Some(gid), |wanted| wanted == uid))
        });
        has_switched.unwrap_or(false)
    }
}

/// An address to which connections of this process are captured outbound.
fn captured_destination(settings: &Settings, port: u16, ipv6: bool) -> Option<IpAddr> {
    let has_port = |ranges: &[PortRange]| {
        let mut ranges = ranges.iter();
        ranges.any(|range| (range.first..=range.last).contains(&port))
    };
    if has_port(&settings.outbound_ports_exclude) {
        return None;
    }
    let excluded = |address: &IpAddr| {
        let mut prefixes = settings.outbound_prefixes_exclude.iter();
        address.is_ipv6() != ipv6 || prefixes.any(|prefix| prefix.contains(address))
    };
    let mut candidates: Vec<IpAddr> = match &settings.outbound_prefixes {
        PrefixSelection::All => UNASSIGNED.to_vec(),
        PrefixSelection::Listed(_) if has_port(&settings.outbound_ports) => UNASSIGNED.to_vec(),
        PrefixSelection::Listed(prefixes) => prefixes.iter().map(last_address).collect(),
    };
    candidates.retain(|address| !excluded(address));
    candidates.first().copied()
}

/// The last address that a host can have: less likely the pod's own than the first.
fn last_address(prefix: &IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(prefix) if prefix.prefix_len() < 31 => {
            let last = u32::from(prefix.broadcast()) - 1;
            IpAddr::V4(last.into())
        }
        IpNet::V4(prefix) => IpAddr::V4(prefix.broadcast()),
        IpNet::V6(prefix) => IpAddr::V6(prefix.broadcast()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    fn destination(arguments: &[&str], ipv6: bool) -> Option<String> {
        let settings = settings(arguments, &[]).unwrap();
        captured_destination(&settings, 15002, ipv6).map(|address| address.to_string())
    }

    #[test]
    fn the_destination_of_an_app_is_captured_outbound() {
        let some = |address: &str| Some(address.to_owned());
        assert_eq!(destination(&["-i", "*"], false), some("192.0.2.1"));
        assert_eq!(destination(&["-i", "*"], true), some("2001:db8::1"));
        let excluded = ["-i", "*", "-x", "192.0.2.0/24"];
        assert_eq!(destination(&excluded, false), some("198.51.100.1"));
        let listed = ["-i", "fd00::/8,10.96.0.0/12"];
        assert_eq!(destination(&listed, false), some("10.111.255.254"));
        assert_eq!(
            destination(&["-q", "15000:16000"], false),
            some("192.0.2.1")
        );
    }

    #[test]
    fn without_outbound_capture_there_is_no_destination() {
        assert_eq!(destination(&[], false), None);
        assert_eq!(destination(&["-i", "fd00::/8"], false), None);
        assert_eq!(destination(&["-i", "*", "-o", "15002"], false), None);
        assert_eq!(destination(&["-i", "*", "-x", "::/0"], true), None);
    }

    #[test]
    fn a_connection_that_does_not_arrive_is_an_error() {
        // Ports on which no proxy of this machine listens.
        let arguments = ["-p", "39471", "-z", "39472", "-i", "*", "-u", "1337"];
        let settings = settings(&arguments, &[]).unwrap();
        let validation = Validation {
            port: 39473,
            timeout: Duration::from_millis(50),
        };
        let error = validation.wait(&settings, localhost(false)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("127.0.0.1:39471 or 127.0.0.1:39472"),
            "{error}"
        );
        assert!(error.contains("50ms"), "{error}");
    }
}
