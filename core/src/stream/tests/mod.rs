//! Tests of PROTOCOL 7: against naive models, and of the promises about memory and errors.

mod range_set;
mod recv;
mod recv_model;
mod send;
mod send_model;
mod window;
