//! WAL for people: names, filters, totals, descriptions.

mod brief;
mod btree;
pub mod dump;
pub mod filter;
mod gin;
mod heap;
mod index;
pub mod inspect;
pub mod json;
pub mod names;
mod path;
mod scene;
mod small;
mod standby;
pub mod stats;
mod text;
mod v15;
pub mod waldump;
mod xact;
mod xlog;
pub mod zone;

pub use dump::{Dump, Dumped, Form};
pub use filter::Filter;
pub use inspect::Inspector;
pub use names::{record_name, record_types};
pub use scene::Scene;
pub use stats::{Stats, Totals};
pub use zone::Zone;
