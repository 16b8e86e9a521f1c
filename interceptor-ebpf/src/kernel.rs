//! The offsets of the kernel's structures that the programs read.

use crate::layout::map_type;

/// An offset that the kernel's BTF does not have.
pub const UNKNOWN_OFFSET: u32 = u32::MAX;

map_type! {
    /// Byte offsets of the members that the programs read with `bpf_probe_read_kernel`, from the
    /// running kernel's BTF.
    pub struct KernelOffsets: 200 {
        /// `struct sock.sk_socket`
        pub sock_socket: u32,
        /// `struct socket.file`
        pub socket_file: u32,
        /// `struct file.f_cred`
        pub file_cred: u32,
        /// `struct cred.fsuid`
        pub cred_fsuid: u32,
        /// `struct cred.fsgid`
        pub cred_fsgid: u32,
        /// `struct inet_sock.inet_sport`
        pub inet_sport: u32,
        /// `struct inet_sock.mc_index`
        pub inet_mc_index: u32,
        /// `struct inet_sock.pinet6`
        pub inet_pinet6: u32,
        /// `struct ipv6_pinfo.mcast_oif`
        pub pinet6_mcast_oif: u32,
        /// `struct inet_sock.inet_opt`
        pub inet_options: u32,
        /// `struct ip_options_rcu.opt.srr`
        pub options_source_route: u32,
        /// `struct ipv6_pinfo.opt`
        pub pinet6_options: u32,
        /// `struct ipv6_txoptions.srcrt`
        pub options6_routing_header: u32,
        /// `struct tcp_sock.rcv_nxt`
        pub tcp_rcv_nxt: u32,
        /// `struct tcp_sock.packets_out`
        pub tcp_packets_out: u32,
        /// `struct net.ipv4.rt_genid`
        pub net_rt_genid: u32,
        /// `struct net.ipv6.fib6_sernum`
        pub net_fib6_sernum: u32,
        /// `struct net.ipv6.rt6_stats`
        pub net_rt6_stats: u32,
        /// `struct rt6_statistics.fib_rt_entries`
        pub rt6_entries: u32,
        /// `struct net.dev_base_head`
        pub net_devices: u32,
        /// `struct net_device.dev_list`
        pub device_in_list: u32,
        /// `struct net_device.ip_ptr`
        pub device_v4: u32,
        /// `struct in_device.ifa_list`
        pub device_v4_addresses: u32,
        /// `struct in_ifaddr.ifa_next`
        pub address_v4_next: u32,
        /// `struct in_ifaddr.ifa_local`
        pub address_v4_local: u32,
        /// `struct net_device.ip6_ptr`
        pub device_v6: u32,
        /// `struct inet6_dev.addr_list`
        pub device_v6_addresses: u32,
        /// `struct inet6_ifaddr.if_list`
        pub address_v6_in_list: u32,
        /// `struct inet6_ifaddr.addr`
        pub address_v6_local: u32,
        /// `struct inet6_ifaddr.rt`
        pub address_v6_route: u32,
        /// `struct fib6_info.fib6_node`
        pub route_v6_node: u32,
        /// `struct task_struct.nsproxy`
        pub task_nsproxy: u32,
        /// `struct nsproxy.net_ns`
        pub nsproxy_net: u32,
        /// `struct sock_common.skc_state`
        pub sock_state: u32,
        /// `struct sock_common.skc_num`
        pub sock_num: u32,
        /// `struct sock_common.skc_family`
        pub sock_family: u32,
        /// `struct sock_common.skc_rcv_saddr`
        pub sock_rcv_saddr: u32,
        /// `struct sock_common.skc_v6_rcv_saddr`
        pub sock_v6_rcv_saddr: u32,
        /// `struct sock_common.skc_net`
        pub sock_net: u32,
        /// `struct net.net_cookie`
        pub net_cookie: u32,
        /// `struct sk_buff.dev`
        pub packet_device: u32,
        /// `struct net_device.nd_net`
        pub device_net: u32,
        /// `struct inet_sock.uc_index`
        pub inet_uc_index: u32,
        /// `struct ipv6_pinfo.ucast_oif`
        pub pinet6_ucast_oif: u32,
        /// `struct ipv6_pinfo.sticky_pktinfo.ipi6_ifindex`
        pub pinet6_sticky_interface: u32,
        /// `struct ipcm_cookie.addr`
        pub datagram_v4_source: u32,
        /// `struct ipcm_cookie.oif`
        pub datagram_v4_interface: u32,
        /// `struct flowi6.saddr`
        pub datagram_v6_source: u32,
        /// `struct flowi6.__fl_common.flowic_oif`
        pub datagram_v6_interface: u32,
        /// `struct sock.sk_reuseport_cb`
        pub sock_reuseport_group: u32,
    }
}

map_type! {
    /// The state of a network namespace's routing tables. A counter that cannot be read is 0, which
    /// no table with routes has: it equals nothing.
    #[derive(Default, PartialEq, Eq)]
    pub struct FibGeneration: 12 {
        /// `net->ipv4.rt_genid`, incremented by every change that invalidates the kernel's cached
        /// routes, also, unlike `net->ipv4.fib_seq`, by a change of routing rules
        /// (`rt_cache_flush`).
        pub rt_genid: u32,
        /// `net->ipv6.fib6_sernum`, incremented by every new route (`fib6_new_sernum`).
        pub fib6_sernum: u32,
        /// `net->ipv6.rt6_stats->fib_rt_entries`, which also changes when a route is removed.
        pub rt6_entries: u32,
    }
}

impl FibGeneration {
    /// The same with unknown IPv4 tables.
    #[must_use]
    pub const fn without_v4(self) -> Self {
        Self {
            rt_genid: 0,
            ..self
        }
    }

    /// The same with unknown IPv6 tables.
    #[must_use]
    pub const fn without_v6(self) -> Self {
        Self {
            fib6_sernum: 0,
            rt6_entries: 0,
            ..self
        }
    }

    /// Whether the IPv4 tables are unchanged since `self`.
    #[inline(always)]
    #[must_use]
    pub const fn is_same_v4(&self, rt_genid: u32) -> bool {
        self.rt_genid == rt_genid && rt_genid != 0
    }

    /// Whether the IPv6 tables are unchanged since `self`.
    #[inline(always)]
    #[must_use]
    pub const fn is_same_v6(&self, fib6_sernum: u32, rt6_entries: u32) -> bool {
        self.fib6_sernum == fib6_sernum
            && self.rt6_entries == rt6_entries
            && fib6_sernum != 0
            && rt6_entries != 0
    }
}

map_type! {
    /// The result of `icept_fib` for a network namespace.
    #[derive(Default, PartialEq, Eq)]
    pub struct NetnsState: 24 {
        /// The address of the `struct net`.
        pub net: u64,
        /// The state of the routing tables.
        pub fib: FibGeneration,
        /// Always 0.
        pub zero: u32,
    }
}

impl KernelOffsets {
    /// No offset is known, so nothing can be read.
    pub const UNKNOWN: Self = Self {
        sock_socket: UNKNOWN_OFFSET,
        socket_file: UNKNOWN_OFFSET,
        file_cred: UNKNOWN_OFFSET,
        cred_fsuid: UNKNOWN_OFFSET,
        cred_fsgid: UNKNOWN_OFFSET,
        inet_sport: UNKNOWN_OFFSET,
        inet_mc_index: UNKNOWN_OFFSET,
        inet_pinet6: UNKNOWN_OFFSET,
        pinet6_mcast_oif: UNKNOWN_OFFSET,
        inet_options: UNKNOWN_OFFSET,
        options_source_route: UNKNOWN_OFFSET,
        pinet6_options: UNKNOWN_OFFSET,
        options6_routing_header: UNKNOWN_OFFSET,
        tcp_rcv_nxt: UNKNOWN_OFFSET,
        tcp_packets_out: UNKNOWN_OFFSET,
        net_rt_genid: UNKNOWN_OFFSET,
        net_fib6_sernum: UNKNOWN_OFFSET,
        net_rt6_stats: UNKNOWN_OFFSET,
        rt6_entries: UNKNOWN_OFFSET,
        net_devices: UNKNOWN_OFFSET,
        device_in_list: UNKNOWN_OFFSET,
        device_v4: UNKNOWN_OFFSET,
        device_v4_addresses: UNKNOWN_OFFSET,
        address_v4_next: UNKNOWN_OFFSET,
        address_v4_local: UNKNOWN_OFFSET,
        device_v6: UNKNOWN_OFFSET,
        device_v6_addresses: UNKNOWN_OFFSET,
        address_v6_in_list: UNKNOWN_OFFSET,
        address_v6_local: UNKNOWN_OFFSET,
        address_v6_route: UNKNOWN_OFFSET,
        route_v6_node: UNKNOWN_OFFSET,
        task_nsproxy: UNKNOWN_OFFSET,
        nsproxy_net: UNKNOWN_OFFSET,
        sock_state: UNKNOWN_OFFSET,
        sock_num: UNKNOWN_OFFSET,
        sock_family: UNKNOWN_OFFSET,
        sock_rcv_saddr: UNKNOWN_OFFSET,
        sock_v6_rcv_saddr: UNKNOWN_OFFSET,
        sock_net: UNKNOWN_OFFSET,
        net_cookie: UNKNOWN_OFFSET,
        packet_device: UNKNOWN_OFFSET,
        device_net: UNKNOWN_OFFSET,
        inet_uc_index: UNKNOWN_OFFSET,
        pinet6_ucast_oif: UNKNOWN_OFFSET,
        pinet6_sticky_interface: UNKNOWN_OFFSET,
        datagram_v4_source: UNKNOWN_OFFSET,
        datagram_v4_interface: UNKNOWN_OFFSET,
        datagram_v6_source: UNKNOWN_OFFSET,
        datagram_v6_interface: UNKNOWN_OFFSET,
        sock_reuseport_group: UNKNOWN_OFFSET,
    };
}
