//! The command, run as its users run it. One program, as each would be linked with everything.

mod call;
mod command;
mod common;
mod copy;
mod demo;
mod probe;
mod proxies;
mod stdio;
