//! Whose bytes a record's bytes are.

use crate::wal::record::{Fragment, fragments};
use crate::wal::{RawRecord, RelTag, WalError};

/// A part of a record, charged to one relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share<'a> {
    /// The number of all bytes but those of images: of the relation of the first block reference, or of none; and
    /// the record's main data.
    Record(Option<RelTag>, u32, &'a [u8]),
    /// The bytes of an image, as stored: of its own relation.
    Image(RelTag, u32),
}

/// Calls `each` with the shares of a record, its images first. Together they are `xl_tot_len`.
///
/// # Errors
/// As [`fragments`].
pub fn shares<'a>(raw: &RawRecord<'a>, mut each: impl FnMut(Share<'a>)) -> Result<(), WalError> {
    let (mut first, mut images) = (None, 0u32);
    let (payload, main_len) = fragments(raw.start, raw.bytes, |fragment| {
        if let Fragment::Block(block) = fragment {
            first = first.or(Some(block.tag.rel));
            if let Some(image) = block.image {
                images += u32::from(image.len);
                each(Share::Image(block.tag.rel, image.len.into()));
            }
        }
    })?;
    let main = payload.len().checked_sub(main_len).and_then(|at| payload.get(at..)).unwrap_or_default();
    each(Share::Record(first, raw.header.tot_len.saturating_sub(images), main));
    Ok(())
}
