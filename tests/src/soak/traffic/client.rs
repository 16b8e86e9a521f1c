//! The connecting side: one thread uses the connections that stay open, another opens new ones.

use std::{
    io::{self, BufRead as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use interceptor_testkit::sidecar::ProxyReport;
use socket2::{Domain, Socket, Type};

use super::{
    exchange::{Exchange, Identity, MAX_CONTENT, canonical},
    protocol::{Command, ConnectPlan, Expected, Fault, Kind, Line, Progress},
    worker::print,
};
use crate::random::Random;

/// Time limit of a connection, and of an exchange. A connection that exceeds it counts as lost. Long
/// enough for a machine with a high load.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Time limit of a probe, which may be refused by silence.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Every open connection is used about this often.
const ROUND: Duration = Duration::from_secs(20);
/// The pause between new connections: other processes need the CPU too.
const OPEN_INTERVAL: Duration = Duration::from_micros(500);
/// The pause after a fault.
const FAULT_INTERVAL: Duration = Duration::from_millis(100);
/// The interval of the counts.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of exchanges of a connection that does not stay open.
const MAX_EXCHANGES: u64 = 4;
/// One in so many of those is closed by a FIN. The others are reset: thousands of connections in
/// `TIME_WAIT` would leave no port.
const FINS: u64 = 16;

/// Executes commands until stdin is closed, then uses every open connection once more.
pub(super) fn run(plan: ConnectPlan) -> Result<()> {
    let client = Client {
        plan,
        progress: Mutex::default(),
        is_ending: AtomicBool::new(false),
    };
    print(&Line::Ready)?;
    thread::scope(|scope| {
        let mut held = None;
        for line in io::stdin().lock().lines() {
            match serde_json::from_str(&line?)? {
                Command::Begin => {
                    held = Some(scope.spawn(|| client.use_held()));
                    scope.spawn(|| client.open_new());
                    scope.spawn(|| client.report());
                }
                Command::Probe(to) => print(&Line::Probed(client.probe(to)))?,
            }
        }
        client.is_ending.store(true, Ordering::Relaxed);
        let open = match held.map(thread::ScopedJoinHandle::join) {
            None => 0,
            Some(open) => {
                open.map_err(|_panicked| anyhow!("the thread of the open connections panicked"))?
            }
        };
        client.report_once()?;
        print(&Line::Ended(open))
    })
}

struct Client {
    plan: ConnectPlan,
    progress: Mutex<Progress>,
    is_ending: AtomicBool,
}

/// An open connection.
struct Connection {
    number: u64,
    to: SocketAddr,
    stream: TcpStream,
    local: SocketAddr,
    opened: Instant,
    exchanges: u64,
}

impl Connection {
    fn open(number: u64, to: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.connect_timeout(&to.into(), timeout)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(timeout))?;
        socket.set_tcp_nodelay(true)?;
        let stream = TcpStream::from(socket);
        let peer = stream.peer_addr()?;
        if peer != to {
            let what = format!("getpeername returns {peer}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Self {
            number,
            to,
            local: canonical(stream.local_addr()?),
            stream,
            opened: Instant::now(),
            exchanges: 0,
        })
    }

    fn exchange(&mut self, length: usize) -> io::Result<Identity> {
        let exchange = Exchange {
            connection: self.number,
            number: self.exchanges,
            length,
        };
        self.exchanges += 1;
        exchange.make(&self.stream)
    }

    /// Whom it must reach.
    fn expected(&self, expected: &Expected) -> Identity {
        Identity {
            server: expected.server.clone(),
            report: Some(ProxyReport {
                listener: expected.listener.to_string(),
                original: self.to.to_string(),
                client: self.local.to_string(),
            }),
        }
    }

    fn name(&self) -> String {
        let age = self.opened.elapsed().as_secs();
        let Self {
            number,
            to,
            local,
            exchanges,
            ..
        } = self;
        format!("connection {number:016x} from {local} to {to}, {age} s old, exchange {exchanges}")
    }
}

impl Client {
    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    fn count(&self, count: impl FnOnce(&mut Progress)) {
        count(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Opens the connections that stay open and uses each again and again. Returns the number of those
    /// that are open at the end.
    fn use_held(&self) -> usize {
        let mut random = Random::new(self.plan.seed, 1);
        let mut held: Vec<_> = (0..self.plan.held)
            .take_while(|_| !self.is_ending())
            .filter_map(|_| self.open(&mut random))
            .collect();
        send(&Line::Held);
        while !self.is_ending() {
            let started = Instant::now();
            let pace = ROUND / u32::try_from(held.len().max(1)).unwrap_or(u32::MAX);
            let mut due = started;
            held.retain_mut(|connection| {
                due += pace;
                self.rest_until(due);
                self.is_ending() || self.use_again(connection, &mut random)
            });
            self.rest_until(started + Duration::from_millis(10));
        }
        held.retain_mut(|connection| self.use_again(connection, &mut random));
        held.len()
    }

    fn rest_until(&self, due: Instant) {
        while !self.is_ending() && Instant::now() < due {
            thread::sleep((due - Instant::now()).min(REPORT_INTERVAL));
        }
    }

    fn use_again(&self, connection: &mut Connection, random: &mut Random) -> bool {
        let is_well = self.exchange(connection, random);
        self.count(|progress| progress.old_exchanges += u64::from(is_well));
        is_well
    }

    /// Opens new connections, until the end.
    fn open_new(&self) {
        let mut random = Random::new(self.plan.seed, 2);
        while !self.is_ending() {
            thread::sleep(OPEN_INTERVAL);
            let Some(mut connection) = self.open(&mut random) else {
                thread::sleep(FAULT_INTERVAL);
                continue;
            };
            for _ in 0..random.below(MAX_EXCHANGES) {
                if !self.exchange(&mut connection, &mut random) {
                    break;
                }
                self.count(|progress| progress.new_exchanges += 1);
            }
            if random.below(FINS) > 0 {
                let socket = socket2::SockRef::from(&connection.stream);
                // An error means that the connection is over already.
                let _reset = socket.set_linger(Some(Duration::ZERO));
            }
        }
    }

    /// Opens a connection and makes its first exchange.
    fn open(&self, random: &mut Random) -> Option<Connection> {
        let number = random.number();
        let to = *random.pick(&self.plan.to)?;
        let mut connection = match Connection::open(number, to, TIMEOUT) {
            Ok(connection) => connection,
            Err(error) => {
                let what = format!("new connection {number:016x} to {to}");
                fail(what, format!("{:?}", self.plan.expected), &error);
                return None;
            }
        };
        let is_well = self.exchange(&mut connection, random);
        self.count(|progress| progress.opened += u64::from(is_well));
        is_well.then_some(connection)
    }

    /// Makes an exchange and checks who responds. Returns whether all is as expected.
    fn exchange(&self, connection: &mut Connection, random: &mut Random) -> bool {
        let length = usize::try_from(random.below(MAX_CONTENT as u64)).unwrap_or_default();
        let expected = connection.expected(&self.plan.expected);
        let seen = match connection.exchange(length) {
            Ok(seen) => seen,
            Err(error) => {
                fail(connection.name(), expected.to_string(), &error);
                return false;
            }
        };
        let is_well = seen == expected;
        if is_well {
            self.count(|progress| progress.bytes += 2 * length as u64);
        } else {
            send(&Line::Fault(Fault {
                kind: kind_of(&seen),
                what: connection.name(),
                expected: expected.to_string(),
                seen: seen.to_string(),
            }));
        }
        is_well
    }

    fn probe(&self, to: SocketAddr) -> Result<Identity, String> {
        let number = Random::new(self.plan.seed, 3).number();
        let connection = Connection::open(number, to, PROBE_TIMEOUT);
        let seen = connection.and_then(|mut connection| connection.exchange(1));
        seen.map_err(|error| error.to_string())
    }

    fn report(&self) {
        while !self.is_ending() {
            thread::sleep(REPORT_INTERVAL);
            if self.report_once().is_err() {
                return;
            }
        }
    }

    fn report_once(&self) -> Result<()> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let since = std::mem::take(&mut *progress);
        drop(progress);
        print(&Line::Progress(since))
    }
}

/// Reports a connection that failed.
fn fail(what: String, expected: String, error: &io::Error) {
    let kind = match error.kind() {
        io::ErrorKind::InvalidData => Kind::Wrong,
        _ => Kind::Lost,
    };
    send(&Line::Fault(Fault {
        kind,
        what,
        expected,
        seen: error.to_string(),
    }));
}

/// Writes a line. If that fails, the reader has exited, and this process is killed.
fn send(line: &Line) {
    let _exited = print(line);
}

/// The kind of a wrong identity.
const fn kind_of(seen: &Identity) -> Kind {
    match seen.report {
        None => Kind::Bypassed,
        Some(_) => Kind::Wrong,
    }
}
