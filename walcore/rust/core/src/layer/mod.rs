//! Layers: what is known of every page, by key and LSN; in memory and in files (`docs/layer-format.md`).

pub mod block;
mod coding;
mod error;
pub mod file;
mod key;
mod merge;
mod open;
mod run;
mod value;
mod writer;

pub use error::LayerError;
pub use file::{Header, LayerFile};
pub use key::{Key, Kind};
pub use merge::{MergeError, merge};
pub use open::{Batch, FieldHasher, OpenLayer};
pub use run::Run;
pub use value::{DeltaCount, PageImage, Size, Touch, Value, page_image};
pub use writer::LayerWriter;
