//! WAL pages and records: headers, block references, images, and their reassembly from a stream.

pub mod blockref;
pub mod error;
pub mod event;
pub mod image;
pub mod page;
mod pglz;
pub mod record;
pub mod span;
pub mod stitch;
pub mod walk;

pub use blockref::{BlockRef, BlockTag, Fork, RelTag};
pub use error::WalError;
pub use event::Event;
pub use image::Image;
pub use page::PageHeader;
pub use record::{Record, RecordHeader};
pub use stitch::{RawRecord, WalStream};
