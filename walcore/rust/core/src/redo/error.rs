//! Why a page cannot be rebuilt.

use super::Target;
use crate::Lsn;
use crate::rmgr;
use crate::wal::{Record, WalError};

/// Why a record could not be applied, or read. Facts come last, as `key=value`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedoError {
    /// There is no redo for this resource manager: the page is lost until its next image.
    #[error("no redo for this record: rmgr={} info={info:#04X} page={page} lsn={lsn}", rmgr::name(*rmid))]
    Unsupported {
        /// Resource manager.
        rmid: u8,
        /// Its part of the record's `xl_info`.
        info: u8,
        /// The page.
        page: Target,
        /// Start of the record.
        lsn: Lsn,
    },
    /// The record does not fit the page it changes.
    #[error(
        "record does not fit its page: reason={reason:?} rmgr={} info={info:#04X} page={page} lsn={lsn}",
        rmgr::name(*rmid)
    )]
    Failed {
        /// What does not fit.
        reason: &'static str,
        /// Resource manager.
        rmid: u8,
        /// Its part of the record's `xl_info`.
        info: u8,
        /// The page.
        page: Target,
        /// Start of the record.
        lsn: Lsn,
    },
    /// No record brought the page into existence.
    #[error("page does not exist: page={page} lsn={lsn}")]
    NoPage {
        /// The page.
        page: Target,
        /// Start of the last record.
        lsn: Lsn,
    },
    /// A full-page image does not restore.
    #[error("{error} page={page}")]
    Image {
        /// What is wrong with the image.
        error: WalError,
        /// The page.
        page: Target,
        /// Start of the record.
        lsn: Lsn,
    },
    /// The record is shorter than what it says it holds; found without looking at a page.
    #[error("record is malformed: what={what:?} rmgr={} info={info:#04X} lsn={lsn}", rmgr::name(*rmid))]
    Malformed {
        /// The structure that does not fit.
        what: &'static str,
        /// Resource manager.
        rmid: u8,
        /// Its part of the record's `xl_info`.
        info: u8,
        /// Start of the record.
        lsn: Lsn,
    },
}

impl RedoError {
    pub(crate) fn unsupported(record: &Record<'_>, page: Target) -> Self {
        let (rmid, info) = (record.header.rmid, record.header.rmgr_info());
        Self::Unsupported { rmid, info, page, lsn: record.start }
    }

    pub(crate) fn failed(record: &Record<'_>, page: Target, reason: &'static str) -> Self {
        let (rmid, info) = (record.header.rmid, record.header.rmgr_info());
        Self::Failed { reason, rmid, info, page, lsn: record.start }
    }

    pub(crate) fn malformed(record: &Record<'_>, what: &'static str) -> Self {
        let (rmid, info) = (record.header.rmid, record.header.rmgr_info());
        Self::Malformed { what, rmid, info, lsn: record.start }
    }
}
