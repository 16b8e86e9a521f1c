//! Proof that a type may go through a map as bytes.

/// Declares a `#[repr(C)]` type of a given size in bytes that both sides of a map agree on: no
/// padding and no invalid bit pattern (zerocopy's derives prove both), a size that cannot drift,
/// and with the feature `user` aya's `Pod`.
macro_rules! map_type {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident: $size:literal {
            $($(#[$field_attribute:meta])* $visibility:vis $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(
            Clone,
            Copy,
            Debug,
            zerocopy::FromBytes,
            zerocopy::Immutable,
            zerocopy::IntoBytes,
            zerocopy::KnownLayout,
        )]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_attribute])* $visibility $field: $type,)*
        }

        const _: () = assert!(size_of::<$name>() == $size);

        // SAFETY: `Pod` asks for a type that is plain bytes: zerocopy's `IntoBytes` has proved that
        // there is no padding, `FromBytes` that every bit pattern is valid.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
}

pub(crate) use map_type;
