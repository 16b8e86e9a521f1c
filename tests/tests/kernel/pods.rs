//! Pods beside one another, beside other people's programs, and with proxies that come and go.

mod attach_points;
mod forwarded;
mod istio_rules;
mod listeners;
mod neighbours;
mod other_programs;
mod places;
mod stand_ins;
mod user_namespaces;
