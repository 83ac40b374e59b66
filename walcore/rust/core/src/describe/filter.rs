//! Which records to show.

use crate::wal::record::{BlockHeader, Fragment, fragments};
use crate::wal::{Fork, RawRecord, RelTag, WalError};

/// What a record must be to be shown; `None` and `false` demand nothing.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of one of these resource managers.
    pub rmgrs: Option<Vec<u8>>,
    /// Of this transaction.
    pub xid: Option<u32>,
    /// With a reference to a block of this relation; `fork` and `blkno` are asked of the same reference.
    pub rel: Option<RelTag>,
    /// With a reference to a block of this fork.
    pub fork: Option<Fork>,
    /// With a reference to a block of this number.
    pub blkno: Option<u32>,
    /// With a full-page image.
    pub full_page: bool,
}

impl Filter {
    /// Whether the record is to be shown.
    ///
    /// # Errors
    /// As [`fragments`].
    #[inline]
    pub fn accepts(&self, raw: &RawRecord<'_>) -> Result<bool, WalError> {
        if self.rmgrs.as_ref().is_some_and(|rmgrs| !rmgrs.contains(&raw.header.rmid))
            || self.xid.is_some_and(|xid| xid != raw.header.xid)
        {
            return Ok(false);
        }
        let by_block = self.rel.is_some() || self.fork.is_some() || self.blkno.is_some();
        if !by_block && !self.full_page {
            return Ok(true);
        }
        self.accepts_blocks(raw, by_block)
    }

    fn accepts_blocks(&self, raw: &RawRecord<'_>, by_block: bool) -> Result<bool, WalError> {
        let (mut block_matches, mut has_image) = (!by_block, !self.full_page);
        fragments(raw.start, raw.bytes, |fragment| {
            if let Fragment::Block(block) = fragment {
                block_matches = block_matches || self.accepts_block(&block);
                has_image = has_image || block.image.is_some();
            }
        })?;
        Ok(block_matches && has_image)
    }

    fn accepts_block(&self, block: &BlockHeader) -> bool {
        self.rel.is_none_or(|rel| rel == block.tag.rel)
            && self.fork.is_none_or(|fork| fork == block.tag.fork)
            && self.blkno.is_none_or(|blkno| blkno == block.tag.blkno)
    }
}
