//! Everything the agent reads from and writes to the API server.

pub mod deployment;
pub mod events;
pub mod lookups;
pub mod pods;
pub mod shutdown;
pub mod taint;
