//! WAL pages and records: headers, block references, images, and their reassembly from a stream.

pub mod blockref;
pub mod error;
pub mod image;
mod pglz;
pub mod record;

pub use blockref::{BlockRef, BlockTag, Fork, RelTag};
pub use error::WalError;
pub use image::Image;
pub use record::{Record, RecordHeader};
