//! How the small program of a network namespace tells the shared one which namespace that is.

use crate::{keys::NetnsCookie, layout::map_type};

/// How many words a call has.
pub const CALL_WORDS: usize = 4;

/// How far a caller's number is shifted up in each word, above a part of the cookie.
pub const CALLER_SHIFT: u32 = 16;

const PART: u64 = (1 << CALLER_SHIFT) - 1;

map_type! {
    /// A call of the shared program, in a slot of the processor that it runs on.
    ///
    /// A program cannot hand an argument to the one that it tail-calls, and the contexts of
    /// `sk_lookup` have no room for one. In softirq, where connections come in, nothing gets between
    /// the two programs. But other look-ups (`inet_diag`, `bpf_sk_lookup_tcp` in programs of system
    /// calls) run in process context: a softirq may interrupt them, and with `CONFIG_PREEMPT` another
    /// task, at any instruction, and use the same slot.
    ///
    /// So every word says whose it is: it has a quarter of the cookie below 48 bits of the caller's
    /// number, which is the address of its context, less an address that is the same for all calls on
    /// this processor. Contexts lie on kernel stacks, so two look-ups that are under way at the same
    /// time differ in it. Each word is written and read by one instruction, and the reader has
    /// written all of them itself before: what it reads is its own or that of a look-up that has
    /// come between, and in that case it finds out. In which order does not matter.
    #[derive(Default, PartialEq, Eq)]
    pub struct Call: 32 {
        /// A quarter of the cookie each, from the lowest up, below the caller's number.
        pub words: [u64; CALL_WORDS],
    }
}

impl Call {
    /// The call that `caller` makes for `netns`.
    #[must_use]
    pub fn new(netns: NetnsCookie, caller: u64) -> Self {
        let parts = Self::cookie_parts(netns);
        Self {
            words: parts.map(|part| caller << CALLER_SHIFT | u64::from(part)),
        }
    }

    /// What each word has of the cookie.
    #[must_use]
    pub fn cookie_parts(netns: NetnsCookie) -> [u16; CALL_WORDS] {
        let bytes = netns.to_le_bytes();
        core::array::from_fn(|part| u16::from_le_bytes([bytes[2 * part], bytes[2 * part + 1]]))
    }

    /// The network namespace that `caller` has put here. `None` if another call has come between.
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

    /// Contexts of two look-ups on the same processor, less the slot's address.
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

    /// However the writes of two calls to the slot fall between each other: all but those that left
    /// every word one's own.
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
