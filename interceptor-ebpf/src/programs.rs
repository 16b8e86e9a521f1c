//! The hooks (first group), and what they share (second group).

mod connect;
mod dns;
mod fib;
mod listeners;
mod lookup;
mod original_destination;
mod socket_creation;
mod socket_names;
mod socket_options;
mod sockops;
mod strict;
mod tc;

mod context;
mod count;
mod events;
mod kernel_memory;
mod maps;
mod outbound_call;
mod own_addresses;
mod packet;
mod pod;
mod report;
mod self_connections;
mod share;
mod stand_ins;
mod tproxy;
mod uapi;

/// The kernel permits some helpers to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
