//! Entrances of the fuzz targets (`fuzz`): each takes any bytes, and panics if a property does not hold.

mod annotations;
mod cni_stdin;
mod conflist;
mod flags;
mod map_records;
mod resolv_conf;

use interceptor_ebpf::NetnsState;

pub use self::{
    annotations::annotations, cni_stdin::cni_stdin, conflist::conflist, flags::flags,
    map_records::map_records, resolv_conf::resolv_conf,
};
use crate::netns::{
    addresses::PodAddress, interfaces::PodInterface, localhost_routes::LocalhostRoutes,
    network::PodNetwork,
};
pub use crate::{cni::protocol::fuzzing::wire, netns::fuzzing::netlink};

/// A pod with one interface and one address of each family.
fn network() -> PodNetwork {
    let address = |net: &str| PodAddress {
        net: net.parse().expect("an address"),
        interface: 2,
    };
    PodNetwork {
        ipv6: true,
        interfaces: vec![PodInterface::up(1, "lo"), PodInterface::up(2, "eth0")],
        addresses: ["10.1.0.2/24", "fd00::2/64"].map(address).to_vec(),
        routes: Vec::new(),
        limits: Vec::new(),
        state: NetnsState::default(),
        localhost: LocalhostRoutes::default(),
    }
}

/// The first line, and what follows it.
fn split_line(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    end.map_or((data, &[]), |end| (&data[..end], &data[end + 1..]))
}

/// Every input that the repository keeps, among them those that were findings.
#[cfg(test)]
mod tests {
    use std::{fs, panic, path::Path};

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 8] = [
        ("annotations", super::annotations),
        ("cni_stdin", super::cni_stdin),
        ("conflist", super::conflist),
        ("flags", super::flags),
        ("map_records", super::map_records),
        ("netlink", super::netlink),
        ("resolv_conf", super::resolv_conf),
        ("wire", super::wire),
    ];

    #[test]
    fn the_properties_hold_for_the_corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            let mut count = 0;
            for input in fs::read_dir(corpus.join(name)).unwrap() {
                let input = input.unwrap().path();
                let data = fs::read(&input).unwrap();
                let holds = panic::catch_unwind(|| target(&data)).is_ok();
                assert!(holds, "{}", input.display());
                count += 1;
            }
            assert!(count > 0, "{name} has no corpus");
        }
    }
}
