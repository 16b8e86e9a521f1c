//! Types of map keys and values.

/// Declares a `#[repr(C)]` type of a given size in bytes that both sides of a map agree on: no
/// padding and no invalid bit pattern (zerocopy's derives prove both), a size that cannot drift,
/// and with the feature `user` aya's `Pod`.
macro_rules! map_type {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident: $size:tt {
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

        // SAFETY: `Pod` requires plain bytes: zerocopy's `IntoBytes` has proved that there is no
        // padding, `FromBytes` that every bit pattern is valid.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
}

/// Declares a set of flags in a map.
macro_rules! flags {
    ($(#[$attribute:meta])* $name:ident($repr:ty): $size:literal { $($(#[$doc:meta])* $flag:ident = $value:expr,)* }) => {
        $crate::layout::map_type! {
            $(#[$attribute])*
            #[derive(Default, PartialEq, Eq)]
            pub struct $name: $size {
                bits: $repr,
            }
        }

        impl $name {
            /// No flag.
            pub const NONE: Self = Self { bits: 0 };

            $($(#[$doc])* pub const $flag: Self = Self { bits: $value };)*

            /// Whether every flag of `other` is set.
            #[inline(always)]
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.bits & other.bits == other.bits
            }

            /// The flags of either set.
            #[inline(always)]
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self { bits: self.bits | other.bits }
            }

            /// The flags of both sets.
            #[inline(always)]
            #[must_use]
            pub const fn intersection(self, other: Self) -> Self {
                Self { bits: self.bits & other.bits }
            }

            /// `self` and, if `condition` holds, `other`.
            #[must_use]
            pub const fn with(self, other: Self, condition: bool) -> Self {
                if condition { self.union(other) } else { self }
            }
        }
    };
}

pub(crate) use flags;
pub(crate) use map_type;
