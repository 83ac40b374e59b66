//! WAL for people: names, filters, totals, renderings.

pub mod filter;
pub mod inspect;
pub mod json;
pub mod names;
pub mod stats;
pub mod text;

pub use filter::Filter;
pub use inspect::Inspector;
pub use names::record_name;
pub use stats::{Stats, Totals};
