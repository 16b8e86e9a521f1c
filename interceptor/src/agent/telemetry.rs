//! Metrics, health and the HTTP endpoint.

pub(super) mod connections;
pub mod health;
pub mod http;
pub(super) mod maps;
pub mod metrics;
pub mod pods;
pub(super) mod programs;
