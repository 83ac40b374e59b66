//! Redo: one record onto one page.

mod error;
mod target;
pub mod touch;
pub mod vm;

pub use error::RedoError;
pub use target::{Slru, Target};
pub use touch::{Missing, Touched, touches};

use crate::page::PageBuf;
use crate::version::Major;
use crate::wal::Record;

/// What redo must know beside the record.
#[derive(Clone, Copy, Debug)]
pub struct Ctx {
    /// The major version that wrote the WAL.
    pub major: Major,
    /// Data checksums or `wal_log_hints` are on at the record's LSN.
    pub hint_bits_logged: bool,
}

/// Applies one record to one page it touches.
///
/// `None` is a page that does not exist. Records must come in the order of the WAL, starting from an image of the page,
/// or from a record that [`touches`] reports with `will_init` or `has_image`, or from nothing where `missing` allows it.
/// After an error the content of `page` means nothing.
///
/// # Errors
/// `Unsupported` if there is no redo for the resource manager; `Failed` if the record does not fit the page;
/// `Image` if a full-page image does not restore.
///
/// Source: `XLogReadBufferForRedoExtended` in `src/backend/access/transam/xlogutils.c`.
pub fn redo(
    page: &mut Option<PageBuf>,
    record: &Record<'_>,
    target: &Target,
    ctx: &Ctx,
) -> Result<(), RedoError> {
    let failed = |reason| RedoError::failed(record, *target, reason);
    let unsupported = || RedoError::unsupported(record, *target);
    let _ = ctx;
    let Target::Block(tag) = target else { return Err(unsupported()) };
    let Some(block) = record.blocks.iter().find(|b| b.tag == *tag) else { return Err(unsupported()) };
    if let Some(image) = block.image.as_ref().filter(|image| image.apply()) {
        let mut restored = image.restore(record.start, block.id).map_err(|error| RedoError::Image {
            error,
            page: *target,
            lsn: record.start,
        })?;
        if !restored.is_new() {
            restored.set_lsn(record.end);
        }
        *page = Some(restored);
        return Ok(());
    }
    if page.is_none() && !block.will_init {
        return Err(failed("page does not exist"));
    }
    Err(unsupported())
}
