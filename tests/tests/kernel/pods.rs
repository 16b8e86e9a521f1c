//! Pods together with other pods, with other programs, and with proxies that restart.

mod attach_points;
mod forwarded;
mod istio_rules;
mod kubepods;
mod listeners;
mod neighbours;
mod other_programs;
mod stand_ins;
mod user_namespaces;
