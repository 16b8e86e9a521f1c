//! The guarantees of a TCP connection, tested on a plain and on an accelerated one.
#![expect(
    clippy::needless_pass_by_value,
    reason = "a probe may close its connection, and the next has another"
)]

use std::{
    fs,
    io::{ErrorKind, IoSliceMut, Read as _, Write as _},
    net::Shutdown,
    os::fd::{AsFd as _, AsRawFd as _},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::{SpliceFFlags, splice},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recvmsg},
    unistd::pipe,
};
use socket2::SockRef;

use super::connection::{Connection, IO_TIMEOUT};

nix::ioctl_read_bad!(readable, libc::FIONREAD, libc::c_int);

/// A guarantee, and its test.
type Probe = (&'static str, fn(Connection) -> Result<()>);

const PROBES: [Probe; 12] = [
    ("bytes arrive, in order", in_order),
    (
        "bytes sent before a close arrive, then the end of the stream",
        end_after_data,
    ),
    (
        "after `shutdown(SHUT_WR)` the peer reads the end of the stream, and can still write",
        half_closed,
    ),
    ("a close without linger resets", reset),
    ("`poll(2)` reports data", poll_reports),
    (
        "`FIONREAD` returns the number of readable bytes",
        readable_counted,
    ),
    ("`MSG_PEEK` leaves the data in the queue", peek),
    ("`recv(2)` with `MSG_WAITALL` waits for all", wait_for_all),
    ("`SO_RCVTIMEO` limits a read", in_time),
    ("a sender stops when the receiver does not read", stops),
    ("`splice(2)` from the socket", spliced),
    (
        "`lo` counts the bytes, and `tcpdump` sees them",
        counted_by_lo,
    ),
];

/// A line with the result of each.
pub(super) fn all() -> Result<Vec<String>> {
    PROBES
        .iter()
        .map(|(what, probe)| {
            let plain = describe(probe(Connection::plain()?));
            let accelerated = describe(probe(Connection::accelerated()?));
            Ok(if plain == accelerated {
                format!("{what}: {plain} in both.")
            } else {
                format!("{what}: {plain} over TCP, {accelerated} when accelerated.")
            })
        })
        .collect()
}

fn describe(result: Result<()>) -> String {
    match result {
        Ok(()) => "works".to_owned(),
        Err(error) => format!("**broken** ({error:#})"),
    }
}

/// Distinct bytes: a lost or repeated one is detected.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| u8::try_from(index % 251).unwrap_or_default())
        .collect()
}

fn in_order(connection: Connection) -> Result<()> {
    let sent = pattern(1 << 15);
    let mut received = vec![0; sent.len()];
    for part in sent.chunks(777) {
        (&connection.client).write_all(part)?;
    }
    (&connection.server).read_exact(&mut received)?;
    ensure!(received == sent, "other bytes");
    Ok(())
}

fn end_after_data(connection: Connection) -> Result<()> {
    let sent = pattern(1 << 15);
    (&connection.client).write_all(&sent)?;
    drop(connection.client);
    let mut received = Vec::new();
    (&connection.server).read_to_end(&mut received)?;
    ensure!(
        received == sent,
        "{} of {} bytes, then the end of the stream",
        received.len(),
        sent.len()
    );
    Ok(())
}

fn half_closed(connection: Connection) -> Result<()> {
    (&connection.client).write_all(b"question")?;
    connection.client.shutdown(Shutdown::Write)?;
    let mut request = Vec::new();
    (&connection.server).read_to_end(&mut request)?;
    ensure!(request == b"question", "{} bytes", request.len());
    (&connection.server).write_all(b"answer")?;
    let mut response = [0; 6];
    (&connection.client).read_exact(&mut response)?;
    Ok(())
}

fn reset(connection: Connection) -> Result<()> {
    SockRef::from(&connection.client).set_linger(Some(Duration::ZERO))?;
    drop(connection.client);
    match (&connection.server).read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error.into()),
        Ok(count) => bail!("{count} bytes instead of ECONNRESET"),
    }
}

fn poll_reports(connection: Connection) -> Result<()> {
    (&connection.client).write_all(b"x")?;
    let timeout = PollTimeout::try_from(IO_TIMEOUT)?;
    let mut polled = [PollFd::new(connection.server.as_fd(), PollFlags::POLLIN)];
    ensure!(poll(&mut polled, timeout)? == 1, "no event");
    Ok(())
}

fn readable_counted(connection: Connection) -> Result<()> {
    (&connection.client).write_all(b"four")?;
    connection.server.peek(&mut [0]).context("no data")?;
    let mut count = 0;
    // SAFETY: the socket is open, and the kernel writes one number.
    unsafe { readable(connection.server.as_raw_fd(), &raw mut count)? };
    ensure!(count == 4, "{count} instead of 4");
    Ok(())
}

fn peek(connection: Connection) -> Result<()> {
    (&connection.client).write_all(b"four")?;
    let mut shown = [0; 4];
    ensure!(connection.server.peek(&mut shown)? == 4, "not all is shown");
    let mut read = [0; 4];
    (&connection.server).read_exact(&mut read)?;
    ensure!(shown == read, "other bytes are read");
    Ok(())
}

fn wait_for_all(connection: Connection) -> Result<()> {
    (&connection.client).write_all(b"half")?;
    let rest = connection.client.try_clone()?;
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        (&rest).write_all(b"half")
    });
    let mut buffer = [0; 8];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let count = recvmsg::<()>(
        connection.server.as_raw_fd(),
        &mut slices,
        None,
        MsgFlags::MSG_WAITALL,
    )?
    .bytes;
    let _sent = later.join();
    ensure!(count == 8, "{count} of 8 bytes");
    Ok(())
}

fn in_time(connection: Connection) -> Result<()> {
    let short = Duration::from_millis(50);
    connection.server.set_read_timeout(Some(short))?;
    match (&connection.server).read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
        Ok(count) => bail!("{count} bytes from nowhere"),
    }
}

fn stops(connection: Connection) -> Result<()> {
    const MAX: usize = 64 << 20;

    connection.client.set_nonblocking(true)?;
    let message = vec![0; 1 << 16];
    let mut sent = 0;
    while sent < MAX {
        match (&connection.client).write(&message) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    bail!("{} MiB are buffered", MAX >> 20)
}

fn spliced(connection: Connection) -> Result<()> {
    (&connection.client).write_all(b"four")?;
    let (_out, into) = pipe()?;
    // A broken one may block.
    connection.server.set_nonblocking(true)?;
    thread::sleep(Duration::from_millis(50));
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
    match splice(&connection.server, None, &into, None, 4, flags) {
        Ok(4) => Ok(()),
        Ok(count) => bail!("{count} of 4 bytes"),
        Err(Errno::EAGAIN) => bail!("no data"),
        Err(error) => Err(error.into()),
    }
}

fn counted_by_lo(connection: Connection) -> Result<()> {
    let sent = pattern(1 << 12);
    let before = bytes_by_loopback()?;
    (&connection.client).write_all(&sent)?;
    (&connection.server).read_exact(&mut vec![0; sent.len()])?;
    let more = bytes_by_loopback()? - before;
    ensure!(more >= sent.len(), "{more} of {} bytes", sent.len());
    Ok(())
}

/// The number of bytes received on `lo` (`netdevice(7)`, `/proc/net/dev`).
fn bytes_by_loopback() -> Result<usize> {
    let devices = fs::read_to_string("/proc/thread-self/net/dev")?;
    let mut lines = devices
        .lines()
        .filter_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = lines.next().and_then(|line| line.split_whitespace().next());
    Ok(bytes.context("no `lo`")?.parse()?)
}
