//! Redo of SLRU pages: the status of transactions.

use super::Slru;
use super::touch::CLOG_XIDS_PER_PAGE;
use crate::page::{Misfit, PageBuf};
use crate::reader::Reader;
use crate::rmgr::{
    self,
    xact::{Outcome, XactEnd},
};
use crate::version::Major;
use crate::wal::Record;

const CLOG_ZEROPAGE: u8 = 0x00;

/// Applies a record to an SLRU page. A page that does not exist is zeros, as in Postgres' recovery.
pub(super) fn redo(
    page: &mut Option<PageBuf>,
    record: &Record<'_>,
    kind: Slru,
    pageno: u64,
    major: Major,
) -> Result<(), Misfit> {
    match (kind, record.header.rmid) {
        (Slru::Clog, rmgr::CLOG) => clog(page, record, pageno, major),
        (Slru::Clog, rmgr::XACT) => {
            let end = XactEnd::decode(record, major).ok_or(super::DATA_SHORT)?;
            let end = end.ok_or("record does not touch the page")?;
            set_status(page.get_or_insert_with(PageBuf::zeroed), &end, pageno);
            Ok(())
        }
        _ => Err("no redo for this record on this page"),
    }
}

fn clog(page: &mut Option<PageBuf>, record: &Record<'_>, pageno: u64, major: Major) -> Result<(), Misfit> {
    let zeroed = rmgr::slru_pageno(&mut Reader(record.main_data), major).ok_or(super::DATA_SHORT)?;
    if record.header.rmgr_info() != CLOG_ZEROPAGE || zeroed != pageno {
        return Err("record does not touch the page");
    }
    *page = Some(PageBuf::zeroed());
    Ok(())
}

/// Writes how a transaction ended for itself and its subtransactions, as far as they are on this page.
///
/// Source: `xact_redo_commit` and `xact_redo_abort` in `src/backend/access/transam/xact.c`, `TransactionIdSetStatusBit` in
/// `clog.c`.
fn set_status(page: &mut PageBuf, end: &XactEnd<'_>, pageno: u64) {
    let status = match end.outcome {
        Outcome::Committed => 1,
        Outcome::Aborted => 2,
    };
    for xid in std::iter::once(end.xid).chain(end.subxids()) {
        if u64::from(xid / CLOG_XIDS_PER_PAGE) != pageno {
            continue;
        }
        let index = xid % CLOG_XIDS_PER_PAGE;
        let shift = index % 4 * 2;
        if let Some(byte) = page.bytes_mut().get_mut((index / 4) as usize) {
            *byte = *byte & !(3 << shift) | status << shift;
        }
    }
}
