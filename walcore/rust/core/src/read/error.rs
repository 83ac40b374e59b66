//! Why a page or a size cannot be given.

use crate::Lsn;
use crate::layer::{Key, LayerError};
use crate::redo::{RedoError, Slru};
use crate::wal::WalError;

/// Why a read failed. Each concerns the thing asked for alone.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The fork does not exist then.
    #[error("relation does not exist: relation={key} lsn={at}")]
    NoSuchRelation {
        /// The page asked for.
        key: Key,
        /// As of when.
        at: Lsn,
    },
    /// The fork is shorter then.
    #[error("block does not exist: page={key} blocks={blocks} lsn={at}")]
    NoSuchBlock {
        /// The page asked for.
        key: Key,
        /// Blocks of the fork.
        blocks: u32,
        /// As of when.
        at: Lsn,
    },
    /// The layers do not reach to that LSN.
    #[error("lsn is not covered: lsn={at} start_lsn={start} end_lsn={end}")]
    NotCovered {
        /// As of when.
        at: Lsn,
        /// First LSN that is.
        start: Lsn,
        /// Last LSN that is.
        end: Lsn,
    },
    /// The page comes out newer than asked for: a base backup's pages are of the time when they were copied.
    #[error("page is newer than asked for: page={key} page_lsn={page_lsn} lsn={at}")]
    Newer {
        /// The page asked for.
        key: Key,
        /// Its own LSN.
        page_lsn: Lsn,
        /// As of when.
        at: Lsn,
    },
    /// Whether this SLRU is written depends on settings that ingest was not told.
    #[error("SLRU is not followed: kind={}", kind.dir())]
    NotFollowed {
        /// Which.
        kind: Slru,
    },
    /// Ingest was not told the counters that it began with.
    #[error("counters are not known: lsn={at}")]
    NoControl {
        /// As of when.
        at: Lsn,
    },
    /// The WAL between the noted counters and the LSN asked for cannot be read.
    #[error("wal cannot be read: from={from} lsn={at} reason={error}")]
    Roll {
        /// Where the counters were noted.
        from: Lsn,
        /// As of when.
        at: Lsn,
        /// What is wrong.
        error: SegmentError,
    },
    /// A layer is damaged.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A record that the page needs is not in the WAL, or not what was indexed.
    #[error("record cannot be read: page={key} lsn={lsn} reason={error}")]
    Record {
        /// The page asked for.
        key: Key,
        /// Start of the record.
        lsn: Lsn,
        /// What is wrong.
        error: SegmentError,
    },
    /// A record does not apply.
    #[error(transparent)]
    Redo(#[from] RedoError),
}

/// Why a record cannot be read from its segment files.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// No segment file, or it ends too early.
    #[error("WAL is missing: segment={segno} {reason}")]
    Missing {
        /// Number of the segment.
        segno: u64,
        /// What the system says.
        reason: String,
    },
    /// The bytes are not the record.
    #[error(transparent)]
    Wal(#[from] WalError),
}
