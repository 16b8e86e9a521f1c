//! Where the running kernel keeps what the programs read of it, from its own BTF.

use std::fs;

use anyhow::{Context as _, Result, anyhow, bail};
use btfparse::{Offset, Readable, TypeInformation, TypeVariant};
use interceptor_ebpf::{KernelOffsets, UNKNOWN_OFFSET};

/// The kernel's description of its own types (`CONFIG_DEBUG_INFO_BTF`).
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The contexts that the programs take a socket out of. Each must begin with it.
const CONTEXTS: [&str; 2] = ["bpf_sock_addr_kern", "bpf_sockopt_kern"];

/// Reads the offsets from the kernel's BTF.
///
/// An offset that only makes an answer more faithful may be missing ([`UNKNOWN_OFFSET`]); one that
/// a verdict hangs on may not.
pub fn read() -> Result<KernelOffsets> {
    let bytes = fs::read(VMLINUX).with_context(|| {
        format!("cannot read {VMLINUX}: the kernel must be built with CONFIG_DEBUG_INFO_BTF")
    })?;
    let types =
        TypeInformation::new(&BtfFile(bytes)).map_err(|error| anyhow!("{VMLINUX}: {error:?}"))?;
    for context in CONTEXTS {
        if offset(&types, context, "sk")? != 0 {
            bail!("this kernel's struct {context} does not begin with its socket");
        }
    }
    from_types(&types)
}

fn from_types(types: &TypeInformation) -> Result<KernelOffsets> {
    let needed = |owner, member| offset(types, owner, member);
    let wanted = |owner, member| offset(types, owner, member).unwrap_or(UNKNOWN_OFFSET);
    Ok(KernelOffsets {
        sock_socket: needed("sock", "sk_socket")?,
        socket_file: needed("socket", "file")?,
        file_cred: needed("file", "f_cred")?,
        cred_fsuid: needed("cred", "fsuid")?,
        cred_fsgid: needed("cred", "fsgid")?,
        sock_state: needed("sock_common", "skc_state")?,
        sock_num: needed("sock_common", "skc_num")?,
        sock_family: needed("sock_common", "skc_family")?,
        sock_rcv_saddr: needed("sock_common", "skc_rcv_saddr")?,
        sock_v6_rcv_saddr: needed("sock_common", "skc_v6_rcv_saddr")?,
        sock_net: needed("sock_common", "skc_net")?,
        net_cookie: needed("net", "net_cookie")?,
        packet_device: needed("sk_buff", "dev")?,
        device_net: needed("net_device", "nd_net")?,
        inet_sport: wanted("inet_sock", "inet_sport"),
        inet_mc_index: wanted("inet_sock", "mc_index"),
        inet_pinet6: wanted("inet_sock", "pinet6"),
        pinet6_mcast_oif: wanted("ipv6_pinfo", "mcast_oif"),
        tcp_rcv_nxt: wanted("tcp_sock", "rcv_nxt"),
        tcp_packets_out: wanted("tcp_sock", "packets_out"),
        net_fib_seq: wanted("net", "ipv4.fib_seq"),
        net_fib6_sernum: wanted("net", "ipv6.fib6_sernum"),
        net_rt6_stats: wanted("net", "ipv6.rt6_stats"),
        rt6_entries: wanted("rt6_statistics", "fib_rt_entries"),
        net_devices: needed("net", "dev_base_head")?,
        device_in_list: needed("net_device", "dev_list")?,
        device_v4: needed("net_device", "ip_ptr")?,
        device_v4_addresses: needed("in_device", "ifa_list")?,
        address_v4_next: needed("in_ifaddr", "ifa_next")?,
        address_v4_local: needed("in_ifaddr", "ifa_local")?,
        device_v6: needed("net_device", "ip6_ptr")?,
        device_v6_addresses: needed("inet6_dev", "addr_list")?,
        address_v6_in_list: needed("inet6_ifaddr", "if_list")?,
        address_v6_local: needed("inet6_ifaddr", "addr")?,
        address_v6_route: needed("inet6_ifaddr", "rt")?,
        route_v6_node: needed("fib6_info", "fib6_node")?,
        task_nsproxy: needed("task_struct", "nsproxy")?,
        nsproxy_net: needed("nsproxy", "net_ns")?,
    })
}

/// The offset in bytes of `member` in `struct owner`.
fn offset(types: &TypeInformation, owner: &str, member: &str) -> Result<u32> {
    let describe = |error| anyhow!("the kernel's BTF has no struct {owner}.{member}: {error:?}");
    let id = struct_id(types, owner)
        .with_context(|| format!("the kernel's BTF has no struct {owner}"))?;
    match types.offset_of(id, member).map_err(describe)? {
        (_, Offset::ByteOffset(offset)) => Ok(offset),
        (_, Offset::BitOffsetAndSize(..)) => bail!("struct {owner}.{member} is a bit field"),
    }
}

/// Functions and typedefs may bear a structure's name, so the kind counts too.
fn struct_id(types: &TypeInformation, name: &str) -> Option<u32> {
    types.get().iter().find_map(|(id, variant)| match variant {
        TypeVariant::Struct(structure) if structure.name().as_deref() == Some(name) => Some(*id),
        _ => None,
    })
}

/// The BTF, read at once: `btfparse` asks for a few bytes at a time, which from sysfs takes seconds.
struct BtfFile(Vec<u8>);

impl Readable for BtfFile {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.0.get(start..)?.get(..buffer.len()))
            .ok_or_else(|| {
                btfparse::Error::new(btfparse::ErrorKind::IOError, "the file is too short")
            })?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_tells_every_offset() {
        let offsets = read().unwrap();
        assert_ne!(offsets.net_fib_seq, UNKNOWN_OFFSET);
        assert_ne!(offsets.inet_sport, UNKNOWN_OFFSET);
        assert_ne!(offsets.net_fib6_sernum, UNKNOWN_OFFSET);
    }
}
