//! The TCP connections of a network namespace.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub local: IpAddr,
    pub remote: IpAddr,
}

/// The open connections of the calling thread's network namespace, without those in `TIME_WAIT`.
pub(crate) fn open() -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/thread-self/net/{table}");
        let text = match fs::read_to_string(&path) {
            // A kernel without IPv6.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            text => text.with_context(|| format!("cannot read {path}"))?,
        };
        connections.extend(text.lines().filter_map(open_connection));
    }
    Ok(connections)
}

/// `0: LOCAL:PORT REMOTE:PORT STATE …` (`get_tcp4_sock`, `get_tcp6_sock`)
fn open_connection(line: &str) -> Option<Connection> {
    const TIME_WAIT: &str = "06";
    const CLOSE: &str = "07";
    const LISTEN: &str = "0A";

    let columns: Vec<_> = line.split_whitespace().take(4).collect();
    let [_, local, remote, state] = columns[..] else {
        return None;
    };
    if [TIME_WAIT, CLOSE, LISTEN].contains(&state) {
        return None;
    }
    Some(Connection {
        local: address(local)?,
        remote: address(remote)?,
    })
}

/// Each word of an address is printed as a number in this machine's byte order.
fn address(end: &str) -> Option<IpAddr> {
    let (words, _port) = end.split_once(':')?;
    let word = |index: usize| {
        let digits = words.get(8 * index..8 * index + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match words.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    fn line(local: &str, remote: &str, state: &str) -> String {
        format!("  0: {local}:0050 {remote}:1F90 {state} 00000000:00000000 00:00000000")
    }

    #[test]
    fn both_families_are_read() {
        let v4 = line("0200010A", "0100007F", "01");
        let expected = Connection {
            local: "10.1.0.2".parse().unwrap(),
            remote: "127.0.0.1".parse().unwrap(),
        };
        assert_eq!(open_connection(&v4), Some(expected));
        let v6 = line(
            "656369FD000074700000000001000000",
            "0000000000000000FFFF00000200010A",
            "02",
        );
        let expected = Connection {
            local: "fd69:6365:7074::1".parse().unwrap(),
            remote: "10.1.0.2".parse().unwrap(),
        };
        assert_eq!(open_connection(&v6), Some(expected));
    }

    #[test]
    fn only_open_connections_count() {
        for state in ["06", "07", "0A"] {
            assert_eq!(open_connection(&line("0200010A", "0100007F", state)), None);
        }
        assert_eq!(
            open_connection("  sl  local_address rem_address   st"),
            None
        );
    }
}
