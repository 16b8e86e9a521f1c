//! Tests of the tests: their cleanup, the demo and the soak. Requires root.

mod cleanup;
mod demo;
mod soak;
