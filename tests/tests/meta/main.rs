//! The tests of the tests: they clean up after themselves, and the demo shows what is so. Needs root.

mod cleanup;
mod demo;
