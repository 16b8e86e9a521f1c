//! Tests of the tests: their cleanup, and the demo. Requires root.

mod cleanup;
mod demo;
