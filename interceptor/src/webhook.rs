//! The admission webhook: injects sidecars into pods as they are created.
//!
//! A review takes this path: `server` accepts the TLS connection with the certificate of
//! `identity`; `handler` reads the request within its limits and passes it to
//! `interceptor_injection::review`, with the configuration of `injector`. `other_injectors` adds a
//! warning for a pod that another injector takes too. Beside it, one task (`maintenance`) keeps the
//! certificate valid, the API server's `caBundle` equal to its CA, and the configuration current.

mod authority;
mod certificates;
mod handler;
mod health;
mod identity;
mod injector;
mod metrics;
pub(crate) mod options;
mod other_injectors;
mod registration;
pub(crate) mod run;
mod secret;
mod server;
