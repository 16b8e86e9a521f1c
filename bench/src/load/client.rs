//! The connecting side.

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
    protocol::{LoadReply, LoadRequest, ServeMode},
    send_reply, stay, used,
};

/// Time limit of a server's response.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after an error: a client that cannot connect must not slow the others down.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// Time limit of a connection that may be impossible.
const OPEN_TIMEOUT: Duration = Duration::from_millis(300);

/// After this many errors, no more connections are possible.
const MAX_ERRORS: u64 = 20;

/// The size of a write when as much as possible is sent.
const CHUNK: usize = 1 << 16;

/// Handles requests until stdin is closed.
pub(super) fn run() -> Result<()> {
    let mut client = Client::default();
    send_reply(&LoadReply::Done)?;
    for line in io::stdin().lock().lines() {
        let request = serde_json::from_str(&line?)?;
        let reply = client.execute(request);
        send_reply(&reply.unwrap_or_else(|error| LoadReply::Failed(name(&error))))?;
    }
    Ok(())
}

#[derive(Default)]
struct Client {
    held: Vec<Socket>,
}

impl Client {
    fn execute(&mut self, request: LoadRequest) -> io::Result<LoadReply> {
        match request {
            LoadRequest::Identify(to) => identify(to).map(LoadReply::Listener),
            LoadRequest::Connect { to, count } => time_connects(to, count),
            LoadRequest::Sustain { to, seconds } => Ok(sustain(to, seconds)),
            LoadRequest::Hold { to, each } => Ok(self.hold(&to, each)),
            LoadRequest::Release => {
                self.held.clear();
                Ok(LoadReply::Done)
            }
            LoadRequest::Visit { first, count } => visit(first, count),
            LoadRequest::Exchange {
                to,
                size,
                milliseconds,
            } => exchange(to, size, Duration::from_millis(milliseconds)),
            LoadRequest::Pour { to, milliseconds } => pour(to, Duration::from_millis(milliseconds)),
            LoadRequest::GetOption { count } => get_option(count),
            LoadRequest::Usage => used(),
            LoadRequest::Stay(cpu) => stay(cpu),
        }
    }

    fn hold(&mut self, to: &[SocketAddr], each: usize) -> LoadReply {
        let mut errors = BTreeMap::<_, u64>::new();
        for to in to {
            for _ in 0..each {
                match open_soon(*to) {
                    Ok(socket) => self.held.push(socket),
                    Err(error) => *errors.entry(name(&error)).or_default() += 1,
                }
                if errors.values().sum::<u64>() > MAX_ERRORS {
                    break;
                }
            }
        }
        let open = self.held.len();
        LoadReply::Held { open, errors }
    }
}

/// A socket whose close resets the connection, so that none is left in `TIME_WAIT`.
fn open(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(socket)
}

/// Connects, and returns the duration of `connect(2)` by `CLOCK_MONOTONIC`.
fn connect(socket: Socket, to: SocketAddr) -> io::Result<(Socket, Duration)> {
    let to = to.into();
    let start = Instant::now();
    socket.connect(&to)?;
    Ok((socket, start.elapsed()))
}

/// A connection, unless it times out: without a free port there is no response.
fn open_soon(to: SocketAddr) -> io::Result<Socket> {
    let socket = open(to)?;
    socket.set_write_timeout(Some(OPEN_TIMEOUT))?;
    Ok(connect(socket, to)?.0)
}

fn identify(to: SocketAddr) -> io::Result<String> {
    let (mut socket, _) = connect(open(to)?, to)?;
    socket.set_read_timeout(Some(SERVER_TIMEOUT))?;
    socket.write_all(&[ServeMode::Identify.byte()])?;
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn time_connects(to: SocketAddr, count: usize) -> io::Result<LoadReply> {
    let mut connects = Vec::with_capacity(count);
    let start = Instant::now();
    for _ in 0..count {
        let (_socket, took) = connect(open(to)?, to)?;
        connects.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }
    let all = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(LoadReply::Times { connects, all })
}

fn sustain(to: SocketAddr, seconds: usize) -> LoadReply {
    let mut done = vec![0; seconds];
    let mut errors = BTreeMap::new();
    let start = Instant::now();
    loop {
        let second = usize::try_from(start.elapsed().as_secs()).unwrap_or(usize::MAX);
        let Some(done) = done.get_mut(second) else {
            break;
        };
        match converse(to) {
            Ok(()) => *done += 1,
            Err(error) => {
                *errors.entry(name(&error)).or_default() += 1;
                thread::sleep(RETRY_INTERVAL);
            }
        }
    }
    LoadReply::Seconds { done, errors }
}

/// One short exchange; the client closes first, and is left in `TIME_WAIT`.
fn converse(to: SocketAddr) -> io::Result<()> {
    let mut socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.connect(&to.into())?;
    socket.write_all(&[ServeMode::Echo.byte(), 0])?;
    socket.read_exact(&mut [0])
}

fn visit(first: SocketAddr, count: u32) -> io::Result<LoadReply> {
    let IpAddr::V4(ip) = first.ip() else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    for number in 0..count {
        let ip = (ip.to_bits() + number).into();
        let to = SocketAddr::new(IpAddr::V4(ip), first.port());
        connect(open(to)?, to)?;
    }
    Ok(LoadReply::Done)
}

fn exchange(to: SocketAddr, size: usize, time: Duration) -> io::Result<LoadReply> {
    let (mut socket, _) = connect(open(to)?, to)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(SERVER_TIMEOUT))?;
    socket.write_all(&[ServeMode::Echo.byte()])?;
    let mut buffer = vec![0; size];
    let mut count = 0_u32;
    let start = Instant::now();
    while start.elapsed() < time {
        socket.write_all(&buffer)?;
        socket.read_exact(&mut buffer)?;
        count += 1;
    }
    Ok(rate(count.into(), start.elapsed()))
}

fn pour(to: SocketAddr, time: Duration) -> io::Result<LoadReply> {
    let (mut socket, _) = connect(open(to)?, to)?;
    socket.set_write_timeout(Some(SERVER_TIMEOUT))?;
    socket.write_all(&[ServeMode::Discard.byte()])?;
    let chunk = vec![0; CHUNK];
    let mut chunks = 0_u32;
    let start = Instant::now();
    while start.elapsed() < time {
        socket.write_all(&chunk)?;
        chunks += 1;
    }
    let bytes = f64::from(chunks) * f64::from(u32::try_from(CHUNK).unwrap_or(u32::MAX));
    Ok(rate(bytes, start.elapsed()))
}

fn get_option(count: u32) -> io::Result<LoadReply> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let start = Instant::now();
    for _ in 0..count {
        black_box(socket.take_error()?);
    }
    let nanoseconds = start.elapsed().as_secs_f64() * 1e9;
    Ok(LoadReply::Nanoseconds(nanoseconds / f64::from(count)))
}

fn rate(count: f64, time: Duration) -> LoadReply {
    LoadReply::PerSecond(count / time.as_secs_f64())
}

fn name(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.kind().to_string(),
        |number| format!("{:?}", Errno::from_raw(number)),
    )
}
