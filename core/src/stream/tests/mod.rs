//! Tests of PROTOCOL 7: of the promises about memory and errors. The models of both halves are in `fuzz/`.

mod range_set;
mod recv;
mod send;
mod window;
