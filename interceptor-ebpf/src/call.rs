//! How the dispatcher of a network namespace passes the namespace's cookie to the shared program.

use crate::{keys::NetnsCookie, layout::map_type};

/// The number of words in a call.
pub const CALL_WORDS: usize = 4;

/// The shift of the caller's number in each word, above a part of the cookie.
pub const CALLER_SHIFT: u32 = 16;

const PART: u64 = (1 << CALLER_SHIFT) - 1;

map_type! {
    /// A call of the shared program, in a per-CPU slot.
    ///
    /// A program cannot pass an argument to a tail call, and the context of `sk_lookup` has no
    /// scratch space. In softirq, which handles received packets, nothing runs between the two
    /// programs.
    /// But other lookups (`inet_diag`, `bpf_sk_lookup_tcp` in programs of system calls) run in
    /// process context: a softirq, or with `CONFIG_PREEMPT` another task, may interrupt them at any
    /// instruction and use the same slot.
    ///
    /// So every word identifies its caller: it has a quarter of the cookie below 48 bits of the
    /// caller's number, which is the address of its context minus an address that is the same for
    /// all calls on this CPU. Contexts are on kernel stacks, so concurrent lookups have different
    /// numbers. Each word is written and read by one instruction, and the reader has written all of
    /// them before: each word that it reads is its own or that of an interrupting lookup, which it
    /// detects. The order of the words does not matter.
    #[derive(Default, PartialEq, Eq)]
    pub struct Call: 32 {
        /// One quarter of the cookie each, lowest first, below the caller's number.
        pub words: [u64; CALL_WORDS],
    }
}

impl Call {
    /// A call by `caller` for `netns`.
    #[must_use]
    pub fn new(netns: NetnsCookie, caller: u64) -> Self {
        let parts = Self::cookie_parts(netns);
        Self {
            words: parts.map(|part| caller << CALLER_SHIFT | u64::from(part)),
        }
    }

    /// The part of the cookie in each word.
    #[must_use]
    pub fn cookie_parts(netns: NetnsCookie) -> [u16; CALL_WORDS] {
        let bytes = netns.to_le_bytes();
        core::array::from_fn(|part| u16::from_le_bytes([bytes[2 * part], bytes[2 * part + 1]]))
    }

    /// The network namespace that `caller` has stored. `None` if another call has overwritten it.
    #[inline(always)]
    #[must_use]
    pub const fn netns(&self, caller: u64) -> Option<NetnsCookie> {
        let caller = caller << CALLER_SHIFT;
        let [a, b, c, d] = self.words;
        let [a, b, c, d] = [a ^ caller, b ^ caller, c ^ caller, d ^ caller];
        if (a | b | c | d) > PART {
            return None;
        }
        Some(a | b << CALLER_SHIFT | c << (2 * CALLER_SHIFT) | d << (3 * CALLER_SHIFT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contexts of two lookups on the same CPU, minus the slot's address.
    const CALLERS: [u64; 2] = [0xffff_9a3c_0012_3e48, 0xffff_9a3c_0012_7e48];
    const COOKIES: [NetnsCookie; 2] = [0x4001, u64::MAX - 1];

    #[test]
    fn a_caller_reads_its_own_cookie() {
        for caller in CALLERS {
            for cookie in [0, 1, COOKIES[0], COOKIES[1], 0x1234_5678_9abc_def0] {
                assert_eq!(Call::new(cookie, caller).netns(caller), Some(cookie));
            }
        }
    }

    /// Every interleaving of the writes of two calls, except the one that keeps all own words.
    #[test]
    fn a_caller_notices_every_word_of_another() {
        let [first, second] = [0, 1].map(|call| Call::new(COOKIES[call], CALLERS[call]));
        for foreign in 1..1_u8 << CALL_WORDS {
            let mixed = Call {
                words: core::array::from_fn(|word| {
                    let is_foreign = foreign >> word & 1 != 0;
                    if is_foreign { second } else { first }.words[word]
                }),
            };
            assert_eq!(mixed.netns(CALLERS[0]), None, "{foreign:b}");
        }
    }
}
