//! The session machine under virtual time: two ends, links between them, faults on the links. Every
//! test sleeps exactly to the machines' own deadlines, which is what exposes a missing one.

mod attacks;
mod audited;
mod basics;
mod choosing;
mod early;
mod faults;
mod floods;
mod handshakes;
mod joins;
mod lanes;
mod limits;
mod messages;
mod protocol;
mod stalls;
mod swarm;
mod world;

pub(super) use world::{Options, World, body, record, records};
