//! A short name for a long text.

/// FNV-1a, 64 bits: the same in every build.
#[must_use]
pub fn of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    /// From the reference's test vectors.
    #[test]
    fn it_is_fnv_1a() {
        assert_eq!(super::of(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(super::of(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
