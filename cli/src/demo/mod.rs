//! The parts of `sheetbend demo`: what it counts, how it measures gaps, and how it shows both.

pub mod gap;
pub mod pattern;
pub mod rate;
pub mod report;
pub mod screen;
pub mod sequence;
pub mod summary;
pub mod table;
