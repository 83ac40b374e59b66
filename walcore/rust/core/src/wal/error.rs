//! What can be wrong with WAL bytes.

use crate::Lsn;

/// A reason why bytes are not the WAL they should be. Facts come last, as `key=value`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The bytes end before the structure does.
    #[error("truncated: what={what} lsn={at}")]
    Truncated {
        /// Where the structure starts.
        at: Lsn,
        /// Which structure.
        what: &'static str,
    },
    /// Zeros where a record would start: nothing was written there yet.
    #[error("no record follows: lsn={at}")]
    NoRecord {
        /// Where it would start.
        at: Lsn,
    },
    /// A field holds a value it cannot have.
    #[error("impossible value: field={field} value={value} lsn={at}")]
    BadField {
        /// Where the structure starts.
        at: Lsn,
        /// Its name in Postgres' source.
        field: &'static str,
        /// The value found.
        value: u64,
    },
    /// The checksum of a record does not match.
    #[error("record checksum mismatch: lsn={at} stored={stored:08X} found={found:08X}")]
    Checksum {
        /// Start of the record.
        at: Lsn,
        /// The checksum in its header.
        stored: u32,
        /// The checksum of its bytes.
        found: u32,
    },
    /// A value differs from the one that the stream demands.
    #[error("mismatch: field={field} expected={expected:X} found={found:X} lsn={at}")]
    Mismatch {
        /// Where the structure starts.
        at: Lsn,
        /// Its name in Postgres' source.
        field: &'static str,
        /// What the stream demands.
        expected: u64,
        /// The value found.
        found: u64,
    },
    /// A full-page image does not decompress to a page.
    #[error("full-page image does not restore: reason={reason} lsn={at} block={block}")]
    BadImage {
        /// Start of the record.
        at: Lsn,
        /// Block reference id.
        block: u8,
        /// Why.
        reason: &'static str,
    },
}
