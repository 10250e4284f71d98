//! The client's side: which endpoint to connect when.

pub mod connector;
pub mod redirects;

pub use connector::Connector;
pub use redirects::{RedirectLimit, Redirects};
