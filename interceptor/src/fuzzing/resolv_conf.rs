//! The property of resolv.conf.

use crate::settings::{DnsCapture, dns};

/// A resolv.conf: a file with the servers that were found in it gives the same ones, without a warning.
pub fn resolv_conf(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let DnsCapture::Servers(servers) = capture(&text, &mut Vec::new()) else {
        return;
    };
    let lines = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"));
    let mut notes = Vec::new();
    let again = capture(&lines.collect::<String>(), &mut notes);
    assert_eq!(again, DnsCapture::Servers(servers));
    assert!(notes.is_empty(), "{notes:?}");
}

fn capture(text: &str, notes: &mut Vec<String>) -> DnsCapture {
    dns::servers(text, "/etc/resolv.conf", notes)
}
