//! The side that connects.

use std::{
    collections::BTreeMap,
    hint::black_box,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::{
    answer,
    protocol::{Order, Outcome, Wish},
    stay, used,
};

/// How long a server may take.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to rest after a refusal: whoever may not connect must not keep the others from it.
const REST: Duration = Duration::from_millis(1);

/// How long a connection may take that may not be possible.
const NO_LONGER: Duration = Duration::from_millis(300);

/// After so many it is clear that no more connections are possible.
const MOST_ERRORS: u64 = 20;

/// What is sent at once when as much as possible is to be sent.
const CHUNK: usize = 1 << 16;

/// Does what it is told until stdin ends.
pub(super) fn run() -> Result<()> {
    let mut client = Client::default();
    answer(&Outcome::Done)?;
    for line in io::stdin().lock().lines() {
        let order = serde_json::from_str(&line?)?;
        let outcome = client.execute(order);
        answer(&outcome.unwrap_or_else(|error| Outcome::Failed(name(&error))))?;
    }
    Ok(())
}

#[derive(Default)]
struct Client {
    held: Vec<Socket>,
}

impl Client {
    fn execute(&mut self, order: Order) -> io::Result<Outcome> {
        match order {
            Order::Identify(to) => identify(to).map(Outcome::Who),
            Order::Connect { to, count } => time_connects(to, count),
            Order::Sustain { to, seconds } => Ok(sustain(to, seconds)),
            Order::Hold { to, each } => Ok(self.hold(&to, each)),
            Order::Release => {
                self.held.clear();
                Ok(Outcome::Done)
            }
            Order::Visit { first, count } => visit(first, count),
            Order::Exchange {
                to,
                size,
                milliseconds,
            } => exchange(to, size, Duration::from_millis(milliseconds)),
            Order::Pour { to, milliseconds } => pour(to, Duration::from_millis(milliseconds)),
            Order::AskOption { count } => ask_option(count),
            Order::Usage => used(),
            Order::Stay(cpu) => stay(cpu),
        }
    }

    fn hold(&mut self, to: &[SocketAddr], each: usize) -> Outcome {
        let mut errors = BTreeMap::<_, u64>::new();
        for to in to {
            for _ in 0..each {
                match open_soon(*to) {
                    Ok(socket) => self.held.push(socket),
                    Err(error) => *errors.entry(name(&error)).or_default() += 1,
                }
                if errors.values().sum::<u64>() > MOST_ERRORS {
                    break;
                }
            }
        }
        let open = self.held.len();
        Outcome::Held { open, errors }
    }
}

/// A socket whose closing resets the connection, so that none waits for late packets.
fn open(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(socket)
}

/// Connects, and answers how long `connect(2)` took by `CLOCK_MONOTONIC`.
fn connect(socket: Socket, to: SocketAddr) -> io::Result<(Socket, Duration)> {
    let to = to.into();
    let begin = Instant::now();
    socket.connect(&to)?;
    Ok((socket, begin.elapsed()))
}

/// A connection, unless that takes too long: where no port is left, nothing is answered.
fn open_soon(to: SocketAddr) -> io::Result<Socket> {
    let socket = open(to)?;
    socket.set_write_timeout(Some(NO_LONGER))?;
    Ok(connect(socket, to)?.0)
}

fn identify(to: SocketAddr) -> io::Result<String> {
    let (mut socket, _) = connect(open(to)?, to)?;
    socket.set_read_timeout(Some(SERVER_TIMEOUT))?;
    socket.write_all(&[Wish::Identify.byte()])?;
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn time_connects(to: SocketAddr, count: usize) -> io::Result<Outcome> {
    let mut connects = Vec::with_capacity(count);
    let begin = Instant::now();
    for _ in 0..count {
        let (_socket, took) = connect(open(to)?, to)?;
        connects.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }
    let all = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(Outcome::Times { connects, all })
}

fn sustain(to: SocketAddr, seconds: usize) -> Outcome {
    let mut done = vec![0; seconds];
    let mut errors = BTreeMap::new();
    let begin = Instant::now();
    loop {
        let second = usize::try_from(begin.elapsed().as_secs()).unwrap_or(usize::MAX);
        let Some(done) = done.get_mut(second) else {
            break;
        };
        match converse(to) {
            Ok(()) => *done += 1,
            Err(error) => {
                *errors.entry(name(&error)).or_default() += 1;
                thread::sleep(REST);
            }
        }
    }
    Outcome::Seconds { done, errors }
}

/// One short conversation; the client closes first, and waits in `TIME_WAIT`.
fn converse(to: SocketAddr) -> io::Result<()> {
    let mut socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.connect(&to.into())?;
    socket.write_all(&[Wish::Echo.byte(), 0])?;
    socket.read_exact(&mut [0])
}

fn visit(first: SocketAddr, count: u32) -> io::Result<Outcome> {
    let IpAddr::V4(ip) = first.ip() else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    for number in 0..count {
        let ip = (ip.to_bits() + number).into();
        let to = SocketAddr::new(IpAddr::V4(ip), first.port());
        connect(open(to)?, to)?;
    }
    Ok(Outcome::Done)
}

fn exchange(to: SocketAddr, size: usize, time: Duration) -> io::Result<Outcome> {
    let (mut socket, _) = connect(open(to)?, to)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(SERVER_TIMEOUT))?;
    socket.write_all(&[Wish::Echo.byte()])?;
    let mut buffer = vec![0; size];
    let mut count = 0_u32;
    let begin = Instant::now();
    while begin.elapsed() < time {
        socket.write_all(&buffer)?;
        socket.read_exact(&mut buffer)?;
        count += 1;
    }
    Ok(rate(count.into(), begin.elapsed()))
}

fn pour(to: SocketAddr, time: Duration) -> io::Result<Outcome> {
    let (mut socket, _) = connect(open(to)?, to)?;
    socket.set_write_timeout(Some(SERVER_TIMEOUT))?;
    socket.write_all(&[Wish::Discard.byte()])?;
    let chunk = vec![0; CHUNK];
    let mut chunks = 0_u32;
    let begin = Instant::now();
    while begin.elapsed() < time {
        socket.write_all(&chunk)?;
        chunks += 1;
    }
    let bytes = f64::from(chunks) * f64::from(u32::try_from(CHUNK).unwrap_or(u32::MAX));
    Ok(rate(bytes, begin.elapsed()))
}

fn ask_option(count: u32) -> io::Result<Outcome> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let begin = Instant::now();
    for _ in 0..count {
        black_box(socket.take_error()?);
    }
    let nanoseconds = begin.elapsed().as_secs_f64() * 1e9;
    Ok(Outcome::Nanoseconds(nanoseconds / f64::from(count)))
}

fn rate(count: f64, time: Duration) -> Outcome {
    Outcome::PerSecond(count / time.as_secs_f64())
}

fn name(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.kind().to_string(),
        |number| format!("{:?}", Errno::from_raw(number)),
    )
}
