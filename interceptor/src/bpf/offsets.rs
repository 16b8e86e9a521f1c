//! The offsets of the kernel's fields that the programs read, from the running kernel's BTF.

use std::fs;

use anyhow::{Context as _, Result, bail};
use interceptor_ebpf::{KernelOffsets, UNKNOWN_OFFSET};

use super::btf::Btf;

/// The kernel's description of its own types (`CONFIG_DEBUG_INFO_BTF`).
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The contexts from which the programs read a socket. It must be their first member.
const CONTEXTS: [&str; 2] = ["bpf_sock_addr_kern", "bpf_sockopt_kern"];

/// The offset in `bpf_sock_addr_kern` of the pointer to the options with which a datagram is sent.
const FOURTH_POINTER: u32 = 24;

/// Reads the offsets from the kernel's BTF.
///
/// An offset that only improves a result may be missing ([`UNKNOWN_OFFSET`]); one that a verdict
/// requires may not.
pub(crate) fn read() -> Result<KernelOffsets> {
    let bytes = fs::read(VMLINUX).with_context(|| {
        format!("cannot read {VMLINUX}: the kernel must be built with CONFIG_DEBUG_INFO_BTF")
    })?;
    let types = Btf::parse(&bytes).context(VMLINUX)?;
    for context in CONTEXTS {
        if types.offset_of(context, "sk")? != 0 {
            bail!("the first member of this kernel's struct {context} is not the socket pointer");
        }
    }
    if types.offset_of(CONTEXTS[0], "t_ctx")? != FOURTH_POINTER {
        bail!(
            "t_ctx is not the fourth member of this kernel's struct {}",
            CONTEXTS[0]
        );
    }
    from_types(|owner, member| types.offset_of(owner, member))
}

fn from_types(needed: impl Fn(&str, &str) -> Result<u32>) -> Result<KernelOffsets> {
    let wanted = |owner, member| needed(owner, member).unwrap_or(UNKNOWN_OFFSET);
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
        inet_options: needed("inet_sock", "inet_opt")?,
        options_source_route: needed("ip_options_rcu", "opt.srr")?,
        inet_pinet6: needed("inet_sock", "pinet6")?,
        pinet6_options: needed("ipv6_pinfo", "opt")?,
        options6_routing_header: needed("ipv6_txoptions", "srcrt")?,
        inet_sport: wanted("inet_sock", "inet_sport"),
        inet_mc_index: wanted("inet_sock", "mc_index"),
        pinet6_mcast_oif: wanted("ipv6_pinfo", "mcast_oif"),
        tcp_rcv_nxt: wanted("tcp_sock", "rcv_nxt"),
        tcp_packets_out: wanted("tcp_sock", "packets_out"),
        net_rt_genid: wanted("net", "ipv4.rt_genid"),
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
        // Without these, a query that names an interface could leave the pod.
        inet_uc_index: needed("inet_sock", "uc_index")?,
        pinet6_ucast_oif: needed("ipv6_pinfo", "ucast_oif")?,
        pinet6_sticky_interface: needed("ipv6_pinfo", "sticky_pktinfo.ipi6_ifindex")?,
        datagram_v4_source: needed("ipcm_cookie", "addr")?,
        datagram_v4_interface: needed("ipcm_cookie", "oif")?,
        datagram_v6_source: needed("flowi6", "saddr")?,
        datagram_v6_interface: needed("flowi6", "__fl_common.flowic_oif")?,
        sock_reuseport_group: wanted("sock", "sk_reuseport_cb"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use anyhow::anyhow;
    use btfparse::{Offset, Readable, TypeInformation, TypeVariant};

    use super::*;

    #[test]
    fn the_running_kernel_has_every_offset() {
        let offsets = read().unwrap();
        assert_ne!(offsets.net_rt_genid, UNKNOWN_OFFSET);
        assert_ne!(offsets.inet_sport, UNKNOWN_OFFSET);
        assert_ne!(offsets.net_fib6_sernum, UNKNOWN_OFFSET);
    }

    struct File(Vec<u8>);

    impl Readable for File {
        fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
            let start = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
            Ok(())
        }
    }

    #[test]
    fn a_library_reads_the_same_offsets() {
        let bytes = fs::read(VMLINUX).unwrap();
        let types = TypeInformation::new(&File(bytes)).unwrap();
        let structs = |(id, variant): (&u32, &TypeVariant)| match variant {
            TypeVariant::Struct(found) => Some((found.name().clone()?, *id)),
            _ => None,
        };
        // Later ones would replace the first.
        let structs: HashMap<_, _> = types.get().iter().rev().filter_map(structs).collect();
        let library = from_types(|owner, member| {
            let id = structs
                .get(owner)
                .copied()
                .with_context(|| owner.to_owned())?;
            match types.offset_of(id, member) {
                Ok((_, Offset::ByteOffset(offset))) => Ok(offset),
                other => Err(anyhow!("{owner}.{member}: {other:?}")),
            }
        });
        assert_eq!(
            format!("{:?}", read().unwrap()),
            format!("{:?}", library.unwrap())
        );
    }
}
