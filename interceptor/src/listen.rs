//! Listens on an address that an option sets.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Result;
use nix::errno::Errno;
use tokio::net::TcpListener;

/// Listens on `address`, which the option `option` sets. Without IPv6, `[::]` is `0.0.0.0`.
pub(crate) async fn listen(address: SocketAddr, option: &str) -> Result<TcpListener> {
    let listening = match TcpListener::bind(address).await {
        Err(error) if is_without_ipv6(&error) && address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        listening => listening,
    };
    listening.map_err(|error| {
        let remedy = remedy(error.kind(), option);
        anyhow::Error::new(error).context(format!("cannot listen on {address}: {remedy}"))
    })
}

/// Whether the kernel has no IPv6 (`ipv6.disable=1`), or IPv6 is off (`disable_ipv6`).
fn is_without_ipv6(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

fn remedy(kind: ErrorKind, option: &str) -> String {
    match kind {
        ErrorKind::AddrInUse => {
            format!("stop the process that uses this address, or set {option}")
        }
        ErrorKind::AddrNotAvailable => {
            format!("set {option} to an address of this host, or to [::] for all of them")
        }
        ErrorKind::PermissionDenied => {
            format!("set {option} to a port above 1023, or grant CAP_NET_BIND_SERVICE")
        }
        _ => format!("set {option}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_remedy_fits_the_cause() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), "--listen").await;
        let used = listener.as_ref().unwrap().local_addr().unwrap();
        // A range for documentation, which no host has.
        let foreign = "192.0.2.1:0".parse().unwrap();
        for (address, expected) in [
            (
                used,
                "stop the process that uses this address, or set --listen",
            ),
            (foreign, "set --listen to an address of this host"),
        ] {
            let error = listen(address, "--listen").await.unwrap_err();
            let text = format!("{error:#}");
            let start = format!("cannot listen on {address}: {expected}");
            assert!(text.starts_with(&start), "{text}");
        }
    }

    #[test]
    fn only_free_ports_need_no_capability() {
        let remedy = remedy(ErrorKind::PermissionDenied, "--listen");
        assert!(remedy.contains("--listen to a port above 1023"), "{remedy}");
    }
}
