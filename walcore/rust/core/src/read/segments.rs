//! Records out of segment files.

use std::sync::Arc;

use super::SegmentError;
use crate::Lsn;
use crate::wal::page::PAGE_LEN;
use crate::wal::stitch::checksum;
use crate::wal::{PageHeader, RecordHeader, WalError};

/// A segment's bytes, mapped or not.
pub type Segment = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Where WAL is.
pub trait Segments: Send + Sync {
    /// Bytes of a segment, from its start; at least `len` of them.
    ///
    /// # Errors
    /// `Missing` if there are not so many.
    fn segment(&self, segno: u64, len: u64) -> Result<Segment, SegmentError>;

    /// Length of a segment file.
    fn segment_size(&self) -> u64;
}

/// Reads records, of one thread: keeps the last segment at hand.
pub struct RecordReader<'a> {
    segments: &'a dyn Segments,
    segment_size: u64,
    at_hand: Option<(u64, Segment)>,
    buffer: Vec<u8>,
}

impl<'a> RecordReader<'a> {
    /// A reader of these segments.
    pub fn new(segments: &'a dyn Segments) -> Self {
        Self { segments, segment_size: segments.segment_size(), at_hand: None, buffer: Vec::new() }
    }

    /// The whole record between two positions, its checksum verified, without page headers and padding.
    ///
    /// # Errors
    /// `Missing` if WAL is not there; `Wal` if it is not the record.
    pub fn record(&mut self, start: Lsn, end: Lsn) -> Result<&[u8], SegmentError> {
        let truncated = || SegmentError::Wal(WalError::Truncated { at: start, what: "record" });
        let in_page = start.0 % PAGE_LEN;
        let bytes = if end.0.saturating_sub(start.0) <= PAGE_LEN - in_page {
            self.page(Lsn(start.0 - in_page), end)?.get(in_page as usize..).ok_or_else(truncated)?
        } else {
            self.gather(start, end)?;
            &self.buffer
        };
        let header = RecordHeader::decode(start, bytes)?;
        let record = bytes.get(..header.tot_len as usize).ok_or_else(truncated)?;
        let found = checksum(record);
        if found != header.crc {
            return Err(WalError::Checksum { at: start, stored: header.crc, found }.into());
        }
        Ok(record)
    }

    /// Puts all bytes between two positions into the buffer, page headers left out.
    fn gather(&mut self, start: Lsn, end: Lsn) -> Result<(), SegmentError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut page = Lsn(start.0 - start.0 % PAGE_LEN);
        let mut skip = start.0 - page.0;
        while page < end {
            let page_end = Lsn((page.0 + PAGE_LEN).min(end.0));
            let header_len = PageHeader::len_at(page, self.segment_size);
            let bytes = self.page(page, page_end)?;
            buffer.extend_from_slice(bytes.get(skip.max(header_len) as usize..).unwrap_or_default());
            skip = 0;
            page = Lsn(page.0 + PAGE_LEN);
        }
        self.buffer = buffer;
        Ok(())
    }

    /// The bytes from the start of a WAL page to `end` on it. The page says that it is that page: a file may hold the
    /// WAL of another position.
    fn page(&mut self, page: Lsn, end: Lsn) -> Result<&[u8], SegmentError> {
        let (segno, offset) = (page.0 / self.segment_size, page.0 % self.segment_size);
        let len = offset + (end.0 - page.0);
        let is_at_hand = self
            .at_hand
            .as_ref()
            .is_some_and(|(n, segment)| *n == segno && segment.as_ref().as_ref().len() as u64 >= len);
        if !is_at_hand {
            self.at_hand = Some((segno, self.segments.segment(segno, len)?));
        }
        let segment = self.at_hand.as_ref().map(|(_, segment)| segment.as_ref().as_ref());
        let bytes = segment.and_then(|s| s.get(offset as usize..len as usize)).unwrap_or_default();
        PageHeader::decode(page, bytes)?;
        Ok(bytes)
    }
}
