//! Every known way to send or receive TCP past the proxy, or to break interception: behind iptables,
//! behind Interceptor, and behind Interceptor in strict mode.
//!
//! A file has the cases of one group; its test also compares the group's table in `SECURITY.md`.
//! `SNAPSHOTS=overwrite` writes the tables.

mod case;
mod connecting;
mod defence;
mod listeners;
mod markers;
mod networks;
mod options;
mod outcome;
mod packets;
mod programs;
mod run;
mod scene;
mod sockets;
mod stand_ins;
mod table;
mod transports;
