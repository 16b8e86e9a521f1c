//! The current addresses of a network namespace, which its routing delivers locally.
//!
//! For use when the copied routes are out of date. These hooks have no helper for routing tables,
//! so this iterates over the lists from which the kernel creates the `local` routes: the devices, and
//! each device's addresses. RCU frees all of them, and programs run in RCU read-side sections.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use interceptor_ebpf::Address;

use super::kernel_memory::{KernelPointer, NetPointer, offset};

/// The maximum number of devices and addresses to visit. Later ones are not found.
const STEPS: u32 = 4096;

/// `struct list_head.next`
const NEXT: u32 = 0;

/// Whether `net` has `address`.
#[inline(always)]
pub(crate) fn include(net: NetPointer, address: Address) -> bool {
    let [first, second]: [u64; 2] = zerocopy::transmute!(address.words());
    icept_has(net.address(), first, second) != 0
}

/// A global function, which the verifier verifies once; a static function it would verify again on
/// each of its callers' many paths.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icept_has(net: u64, first_half: u64, second_half: u64) -> u64 {
    let devices = NetPointer::new(net).devices();
    let mut walk = Walk {
        wanted: Address::from_words(zerocopy::transmute!([first_half, second_half])),
        devices,
        device: devices,
        entries: KernelPointer::NULL,
        entry: KernelPointer::NULL,
        found: 0,
    };
    // The verifier of 6.1 follows the callback once, and removes code that it does not reach as dead.
    // So the walk starts with values that are unknown to it: at a device.
    if walk.enter_next_device() {
        return 0;
    }
    // SAFETY: the callback's context has the type that it expects, and outlives the call.
    unsafe {
        let walk = (&raw mut walk).cast();
        bpf_loop(STEPS, step as *mut c_void, walk, 0);
    }
    walk.found
}

/// Returns 1, which ends the loop, when the walk has ended.
unsafe extern "C" fn step(_index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: `icept_has` passes its own `Walk`.
    let walk = unsafe { &mut *walk };
    if walk.is_between_devices() {
        return walk.enter_next_device().into();
    }
    if walk.is_at_wanted() {
        walk.found = 1;
        return 1;
    }
    walk.entry = walk.next_entry();
    0
}

/// The position of a walk.
struct Walk {
    wanted: Address,
    /// The head of the list of devices.
    devices: KernelPointer,
    /// The device's node in that list.
    device: KernelPointer,
    /// The head of the list of the device's IPv6 addresses, which is also its end.
    entries: KernelPointer,
    /// A `struct in_ifaddr`, or the node of a `struct inet6_ifaddr` in that list.
    entry: KernelPointer,
    found: u64,
}

impl Walk {
    #[inline(always)]
    fn is_between_devices(&self) -> bool {
        self.entry.is_null() || self.entry == self.entries
    }

    /// Moves to the first address of the next device. Returns true if there is no such device.
    #[inline(always)]
    fn enter_next_device(&mut self) -> bool {
        self.device = self.device.follow(NEXT);
        if self.device.is_null() || self.device == self.devices {
            return true;
        }
        let device = self.device.container(offset!(device_in_list));
        if self.wanted.is_v4() {
            let v4 = device.follow(offset!(device_v4));
            self.entry = v4.follow(offset!(device_v4_addresses));
        } else {
            let v6 = device.follow(offset!(device_v6));
            self.entries = v6.member(offset!(device_v6_addresses));
            self.entry = self.entries.follow(NEXT);
        }
        false
    }

    #[inline(always)]
    fn next_entry(&self) -> KernelPointer {
        if self.wanted.is_v4() {
            self.entry.follow(offset!(address_v4_next))
        } else {
            self.entry.follow(NEXT)
        }
    }

    #[inline(always)]
    fn is_at_wanted(&self) -> bool {
        if self.wanted.is_v4() {
            self.is_at_wanted_v4()
        } else {
            self.is_at_wanted_v6()
        }
    }

    /// An IPv4 address is local as soon as it exists, also while its device is down
    /// (`fib_add_ifaddr`, `fib_sync_down_dev`).
    #[inline(always)]
    fn is_at_wanted_v4(&self) -> bool {
        let local = Address::from_v4(self.entry.read(offset!(address_v4_local)));
        local == self.wanted
    }

    /// An IPv6 address is local while its route is in the tables: not before duplicate address
    /// detection has ended, and not while its device is down (`__ipv6_ifa_notify`,
    /// `addrconf_ifdown`).
    #[inline(always)]
    fn is_at_wanted_v6(&self) -> bool {
        let entry = self.entry.container(offset!(address_v6_in_list));
        let local = Address::from_words(entry.read(offset!(address_v6_local)));
        let route = entry.follow(offset!(address_v6_route));
        local == self.wanted && !route.follow(offset!(route_v6_node)).is_null()
    }
}
