//! Calls: what a caller may say of one, their four kinds, and what their handlers are given.
//!
//! PROTOCOL 11. [`Session::request`](crate::Session::request) is the short way for a unary call that says
//! nothing else.

mod builder;
mod context;
mod items;
mod items_in;
pub(crate) mod options;
mod reply;

pub use builder::CallBuilder;
pub use context::{Cancelled, Context};
pub use items::{Answers, ItemSender, StreamingRequest};
pub use items_in::Items;
pub use reply::Reply;
