//! The admission webhook: injects sidecars into pods as they are created.
//!
//! A review takes this path: `server` accepts the TLS connection with the certificate of
//! `identity`, within the limits of `connections`; `handler` reads the request, within those of
//! `body`, and passes it to `interceptor_injection::review`, with the configuration of `injector`.
//! `other_injectors` adds a warning for a pod that another injector takes too. Beside it,
//! `maintenance` keeps the certificate valid and the API server's `caBundle` equal to its CA, and
//! `configuration` keeps the configuration equal to what files and cluster contain.

mod authority;
mod body;
mod certificates;
mod configuration;
mod connections;
mod events;
mod handler;
mod health;
mod identity;
mod injector;
mod maintenance;
mod metrics;
pub(crate) mod options;
mod other_injectors;
mod registration;
pub(crate) mod run;
mod secret;
mod server;
