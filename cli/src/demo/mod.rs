//! `sheetbend demo`: one session over several paths, each of them broken again and again.
//!
//! `world` is the server, the proxies and the session; `traffic` is what goes through them; `director`
//! breaks paths; `watch` knows what arrived, what switched and how long each silence was; `table`,
//! `screen` and `summary` show it.

pub mod command;
mod director;
mod fault;
pub mod gap;
pub mod pattern;
pub mod rate;
pub mod report;
pub mod screen;
pub mod sequence;
pub mod summary;
pub mod table;
mod traffic;
mod watch;
pub(crate) mod world;
