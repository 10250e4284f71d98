//! The client's side: which endpoint to connect when.

pub mod connector;

pub use connector::Connector;
