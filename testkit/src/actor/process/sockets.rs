//! An actor's sockets and the requests on them.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::AsFd as _,
    thread,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    datagrams, options, passing,
    protocol::{Family, Handle, Level, Protocol, Reply, Request, SocketOption},
    raw, ring,
    timeouts::{CONNECT_TIMEOUT, RECEIVE_TIMEOUT},
    xdp,
};

const BACKLOG: i32 = 1024;
const SO_ORIGINAL_DST: i32 = 80;

/// The sockets of an actor.
#[derive(Default)]
pub(super) struct Sockets {
    table: BTreeMap<Handle, Socket>,
    last: Handle,
    /// The unix socket at which another actor may offer a socket.
    config: Option<Socket>,
}

impl Sockets {
    /// Handles a request.
    pub(super) fn execute(&mut self, request: Request) -> io::Result<Reply> {
        match request {
            Request::Socket { family, protocol } => {
                let socket = open(family, protocol)?;
                Ok(self.add(socket))
            }
            Request::OpenSocket {
                domain,
                kind,
                protocol,
            } => {
                let socket = Socket::new(domain.into(), kind.into(), Some(protocol.into()))?;
                set_timeouts(&socket)?;
                Ok(self.add(socket))
            }
            Request::Accept { socket } => {
                let (accepted, _) = self.get(socket)?.accept()?;
                set_timeouts(&accepted)?;
                Ok(self.add(accepted))
            }
            Request::RingAccept { socket } => {
                let accepted = ring::accept(self.get(socket)?)?;
                set_timeouts(&accepted)?;
                Ok(self.add(accepted))
            }
            Request::Expect { at } => {
                self.config = Some(passing::expect(&at, RECEIVE_TIMEOUT)?);
                Ok(Reply::Done)
            }
            Request::Take => {
                let config = self.config.take().ok_or(io::ErrorKind::NotFound)?;
                let received = passing::take(&config)?;
                Ok(self.add(received))
            }
            Request::ListenOnMany {
                first,
                count,
                stay_open,
            } => {
                for number in 0..count {
                    let listener = listen_on(above(first, number))?;
                    if stay_open {
                        self.add(listener);
                    }
                }
                Ok(Reply::Done)
            }
            Request::Close { socket } => self.take(socket).map(|_| Reply::Done),
            Request::CloseAll => {
                self.close_all();
                Ok(Reply::Done)
            }
            request => self.use_one(request),
        }
    }

    /// The requests that do not change the table.
    fn use_one(&self, request: Request) -> io::Result<Reply> {
        let done = |()| Reply::Done;
        match request {
            Request::Set { socket, option } => options::set(self.get(socket)?, &option).map(done),
            Request::Bind { socket, address } => self.get(socket)?.bind(&address.into()).map(done),
            Request::Listen { socket } => self.get(socket)?.listen(BACKLOG).map(done),
            Request::ListenForOne { socket } => self.get(socket)?.listen(0).map(done),
            Request::Connect { socket, address } => {
                self.get(socket)?.connect(&address.into()).map(done)
            }
            Request::ConnectStart { socket, address } => {
                start_connect(self.get(socket)?, address).map(done)
            }
            Request::ConnectFinish { socket } => finish_connect(self.get(socket)?),
            Request::RingConnect {
                socket,
                address,
                poll,
            } => ring::connect(self.get(socket)?, address, poll).map(done),
            Request::RingDirect { address } => ring::dial_direct(address).map(Reply::Data),
            Request::Disconnect { socket } => {
                Ok(raw::disconnect(self.get(socket)?.as_fd()).map(done)?)
            }
            Request::Offer { socket, at } => passing::offer(self.get(socket)?, &at).map(done),
            request => self.transfer(request),
        }
    }

    /// The requests about data and names.
    fn transfer(&self, request: Request) -> io::Result<Reply> {
        match request {
            Request::Send { socket, data } => self.get(socket)?.send(data.as_bytes()).map(length),
            Request::SendFromThread { socket, data } => {
                send_from_thread(self.get(socket)?, data).map(length)
            }
            Request::FastOpenSend {
                socket,
                address,
                data,
            } => self
                .get(socket)?
                .send_to_with_flags(data.as_bytes(), &address.into(), libc::MSG_FASTOPEN)
                .map(length),
            Request::SendTo {
                socket,
                address,
                data,
            } => self
                .get(socket)?
                .send_to(data.as_bytes(), &address.into())
                .map(length),
            Request::SendBytes {
                socket,
                address: None,
                bytes,
            } => self.get(socket)?.send(&bytes).map(length),
            Request::SendBytes {
                socket,
                address: Some(address),
                bytes,
            } => self
                .get(socket)?
                .send_to(&bytes, &address.into())
                .map(length),
            Request::SendFrames {
                interface,
                frames,
                bypass_queue,
            } => send_frames(&interface, &frames, bypass_queue).map(|()| Reply::Done),
            Request::SendByXdp { interface, frame } => {
                xdp::send_frame(&interface, &frame).map(|()| Reply::Done)
            }
            Request::WriteToTun { interface, packets } => {
                write_to_tun(&interface, &packets).map(|()| Reply::Done)
            }
            Request::SendWith {
                socket,
                address,
                data,
                info,
            } => datagrams::send_with(self.get(socket)?, address, &data, &info).map(length),
            Request::ReceiveFrom { socket, peek } => {
                let datagram = datagrams::receive(self.get(socket)?, peek)?;
                Ok(Reply::Datagrams(vec![datagram]))
            }
            Request::ReceiveMany { socket, count } => {
                datagrams::receive_many(self.get(socket)?, count).map(Reply::Datagrams)
            }
            Request::ReceiveLine { socket } => receive_line(self.get(socket)?).map(Reply::Data),
            Request::LocalName { socket } => local_name(self.get(socket)?).map(Reply::Name),
            Request::PeerName { socket } => peer_name(self.get(socket)?).map(Reply::Name),
            Request::OriginalDestination {
                socket,
                level,
                length,
            } => {
                let (address, length) = get_original(self.get(socket)?, level, length)?;
                Ok(Reply::Original { address, length })
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn add(&mut self, socket: Socket) -> Reply {
        self.last += 1;
        self.table.insert(self.last, socket);
        Reply::Socket(self.last)
    }

    fn get(&self, handle: Handle) -> io::Result<&Socket> {
        self.table.get(&handle).ok_or_else(|| Errno::EBADF.into())
    }

    /// Removes a socket from the table.
    pub(super) fn take(&mut self, handle: Handle) -> io::Result<Socket> {
        self.table
            .remove(&handle)
            .ok_or_else(|| Errno::EBADF.into())
    }

    fn close_all(&mut self) {
        for socket in self.table.values() {
            // A UDP socket has nothing to reset.
            let _reset = options::set(socket, &SocketOption::ResetOnClose);
        }
        self.table.clear();
        self.config = None;
    }
}

fn length(length: usize) -> Reply {
    Reply::Data(length.to_string())
}

fn open(family: Family, protocol: Protocol) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let (kind, number) = match protocol {
        Protocol::Tcp => (Type::STREAM, libc::IPPROTO_TCP),
        Protocol::Mptcp => (Type::STREAM, libc::IPPROTO_MPTCP),
        Protocol::Udp => (Type::DGRAM, libc::IPPROTO_UDP),
    };
    let socket = Socket::new(domain, kind, Some(number.into()))?;
    set_timeouts(&socket)?;
    if protocol == Protocol::Udp {
        // There may be no reply.
        socket.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    }
    Ok(socket)
}

fn listen_on(address: SocketAddr) -> io::Result<Socket> {
    let listener = open(Family::of(address), Protocol::Tcp)?;
    options::set(&listener, &SocketOption::ReusePort)?;
    options::set(&listener, &SocketOption::FreeBind)?;
    listener.bind(&address.into())?;
    listener.listen(BACKLOG)?;
    Ok(listener)
}

/// The address that is `number` above `first`.
pub(crate) fn above(first: SocketAddr, number: u32) -> SocketAddr {
    let ip = match first.ip() {
        IpAddr::V4(first) => IpAddr::V4((first.to_bits() + number).into()),
        IpAddr::V6(first) => IpAddr::V6((first.to_bits() + u128::from(number)).into()),
    };
    SocketAddr::new(ip, first.port())
}

fn set_timeouts(socket: &Socket) -> io::Result<()> {
    socket.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
    socket.set_write_timeout(Some(CONNECT_TIMEOUT))
}

fn start_connect(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.connect(&address.into())
}

fn finish_connect(socket: &Socket) -> io::Result<Reply> {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(CONNECT_TIMEOUT).map_err(io::Error::other)?;
    poll(&mut fds, timeout)?;
    let events = fds[0].revents().unwrap_or(PollFlags::empty());
    let error = socket.take_error()?;
    socket.set_nonblocking(false)?;
    Ok(Reply::Polled {
        events: events
            .iter_names()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
            .join("|"),
        error: error.as_ref().map(errno_name),
    })
}

/// Sends frames, with or without the interface's queueing discipline.
fn send_frames(interface: &str, frames: &[Vec<u8>], bypass_queue: bool) -> io::Result<()> {
    const PACKET_QDISC_BYPASS: i32 = 20;

    let socket = raw::packet_socket(interface)?;
    if bypass_queue {
        let on = 1_i32.to_ne_bytes();
        raw::set_option(socket.as_fd(), libc::SOL_PACKET, PACKET_QDISC_BYPASS, &on)?;
    }
    let socket = Socket::from(socket);
    frames
        .iter()
        .try_for_each(|frame| socket.send(frame).map(drop))
}

fn write_to_tun(interface: &str, packets: &[Vec<u8>]) -> io::Result<()> {
    let mut device = raw::tun(interface)?;
    packets
        .iter()
        .try_for_each(|packet| device.write_all(packet))
}

fn send_from_thread(socket: &Socket, data: String) -> io::Result<usize> {
    let socket = socket.try_clone()?;
    thread::spawn(move || socket.send(data.as_bytes()))
        .join()
        .map_err(|_| io::Error::from(io::ErrorKind::Other))?
}

fn receive_line(mut socket: &Socket) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") && socket.read(&mut byte)? > 0 {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// `getsockname(2)`
pub(super) fn local_name(socket: &Socket) -> io::Result<SocketAddr> {
    internet(&socket.local_addr()?)
}

/// `getpeername(2)`
pub(super) fn peer_name(socket: &Socket) -> io::Result<SocketAddr> {
    internet(&socket.peer_addr()?)
}

fn internet(address: &SockAddr) -> io::Result<SocketAddr> {
    address
        .as_socket()
        .ok_or_else(|| Errno::EAFNOSUPPORT.into())
}

/// `SO_ORIGINAL_DST` with a buffer that is long enough.
pub(super) fn original_destination(socket: &Socket, level: Level) -> io::Result<SocketAddr> {
    let length = match level {
        Level::Ip => size_of::<libc::sockaddr_in>(),
        Level::Ipv6 => size_of::<libc::sockaddr_in6>(),
    };
    get_original(socket, level, length).map(|(address, _)| address)
}

fn get_original(socket: &Socket, level: Level, length: usize) -> io::Result<(SocketAddr, usize)> {
    let level = match level {
        Level::Ip => libc::SOL_IP,
        Level::Ipv6 => libc::SOL_IPV6,
    };
    let (bytes, kernel_length) = raw::get_option(socket.as_fd(), level, SO_ORIGINAL_DST, length)?;
    let address = parse(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    Ok((address, kernel_length))
}

/// Reads a `struct sockaddr_in` or `sockaddr_in6`.
fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let address: &[u8; 4] = bytes.get(4..)?.first_chunk()?;
            Some((IpAddr::V4(Ipv4Addr::from(*address)), port).into())
        }
        libc::AF_INET6 => {
            let address: &[u8; 16] = bytes.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(*address), port, 0, scope).into())
        }
        _ => None,
    }
}

/// The name of the errno behind `error`.
pub(super) fn errno_name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}
