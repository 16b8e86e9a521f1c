//! Attaching, replacing, detaching: the current settings at each time, and leftovers.

mod at_once;
mod attaching;
mod closed_pipes;
mod deleted;
mod detaching;
mod explaining;
mod killed;
mod localhost_routes;
mod replacing;
mod routes;
mod running;
mod tproxy;
mod under_load;
