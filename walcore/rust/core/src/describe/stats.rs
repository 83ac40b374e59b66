//! Totals by resource manager and record.

use super::record_name;
use crate::rmgr;
use crate::version::Major;
use crate::wal::record::image_bytes;
use crate::wal::{RawRecord, WalError};

/// Totals over records of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records.
    pub count: u64,
    /// Their bytes without full-page images.
    pub rec_len: u64,
    /// Bytes of their full-page images, as stored.
    pub fpi_len: u64,
}

/// Totals by resource manager and the upper half of `xl_info`.
#[derive(Clone, Debug)]
pub struct Stats(Vec<[Totals; 16]>);

impl Default for Stats {
    fn default() -> Self {
        Self(vec![[Totals::default(); 16]; 256])
    }
}

impl Stats {
    /// Adds one record.
    ///
    /// # Errors
    /// As [`image_bytes`].
    ///
    /// Source: `XLogRecStoreStats` in `src/backend/access/transam/xlogstats.c`.
    #[inline]
    pub fn add(&mut self, raw: &RawRecord<'_>) -> Result<(), WalError> {
        let fpi_len = image_bytes(raw.start, raw.bytes)?;
        let header = &raw.header;
        // The top bit of a transaction record's info is a flag, not part of what it is.
        let opcode = if header.rmid == rmgr::XACT { header.info & 0x70 } else { header.info & 0xF0 };
        let kinds = self.0.get_mut(usize::from(header.rmid));
        if let Some(totals) = kinds.and_then(|kinds| kinds.get_mut(usize::from(opcode >> 4))) {
            totals.count += 1;
            totals.rec_len += u64::from(header.tot_len.saturating_sub(fpi_len));
            totals.fpi_len += u64::from(fpi_len);
        }
        Ok(())
    }

    /// Adds what others counted.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().flatten().zip(other.0.iter().flatten()) {
            ours.count += theirs.count;
            ours.rec_len += theirs.rec_len;
            ours.fpi_len += theirs.fpi_len;
        }
    }

    /// The kinds of records that occurred: resource manager, name, totals; in order of their numbers.
    pub fn rows(&self, major: Major) -> Vec<(u8, String, Totals)> {
        let mut rows = Vec::new();
        for (rmid, kinds) in (0u8..=255).zip(&self.0) {
            for (opcode, totals) in (0u8..=240).step_by(16).zip(kinds) {
                if totals.count > 0 {
                    let name = record_name(major, rmid, opcode);
                    let name = name.map_or_else(|| format!("UNKNOWN ({opcode:x})"), str::to_owned);
                    rows.push((rmid, name, *totals));
                }
            }
        }
        rows
    }
}
