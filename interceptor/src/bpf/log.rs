//! Prints the verdicts that the programs log through aya-log.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;
use interceptor_ebpf::Reason;
use log::{Log, Metadata, Record};
use tokio::io::{Interest, unix::AsyncFd};

use super::{object::Object, pins::Pins};
use crate::stdio::message;

/// Prints every verdict to standard error while it is polled. The records of all pods are in one
/// buffer, so only one reader at a time receives them.
pub(crate) async fn print(pins: &Pins) -> Result<()> {
    let mut object = Object::new(pins.clone());
    let logger = EbpfLogger::init_with_logger(object.read()?, Printer)
        .context("cannot read the log of the BPF programs")?;
    // SAFETY: the logger owns its descriptor, which stays the same until it is dropped.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE)? };
    loop {
        let mut ready = logger.readable_mut().await?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

/// Writes a record as a line, with the reason in words.
struct Printer;

impl Log for Printer {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        message!("{}", line(&text).unwrap_or(text));
    }

    fn flush(&self) {}
}

/// `out ADDRESS PORT uid UID to LISTENER reason NUMBER`, without `uid` for `in`.
fn line(record: &str) -> Option<String> {
    let words: Vec<_> = record.split(' ').collect();
    let value = |name| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1).copied()
    };
    let address = words.get(1)?.parse::<Ipv6Addr>().ok()?.to_canonical();
    let port: u16 = words.get(2)?.parse().ok()?;
    let by = match value("uid") {
        Some("4294967295") | None => String::new(),
        Some(uid) => format!(" by uid {uid}"),
    };
    let verdict = match value("to")? {
        "0" => "PASSED".to_owned(),
        listener => format!("CAPTURED to {listener}"),
    };
    let reason = Reason::ALL.get(value("reason")?.parse::<usize>().ok()?)?;
    let destination = SocketAddr::new(address, port);
    let direction = words.first()?;
    Some(format!(
        "{direction:3} {destination}{by}: {verdict}, {}",
        reason.words()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_formatted_as_a_line() {
        let (included, excluded) = (Reason::PrefixIncluded, Reason::InboundPortExcluded);
        let outbound = format!(
            "out ::ffff:10.9.0.1 80 uid 1000 to 15001 reason {}",
            included as u8
        );
        assert_eq!(
            line(&outbound).as_deref(),
            Some(
                "out 10.9.0.1:80 by uid 1000: CAPTURED to 15001, the destination is included (-i)"
            )
        );
        assert_eq!(
            line(&format!("in fd00::1 15020 to 0 reason {}", excluded as u8)).as_deref(),
            Some("in  [fd00::1]:15020: PASSED, the port is excluded (-d)")
        );
        assert_eq!(line("something else"), None);
    }
}
