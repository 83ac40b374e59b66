//! Redo of SLRU pages: the status of transactions, their commit times, and multixacts.
//!
//! These pages have no header and no LSN: what is done again gives the same.

use super::touch::{CLOG_XIDS_PER_PAGE, COMMIT_TS_XIDS_PER_PAGE};
use super::{DATA_SHORT, Slru};
use crate::page::{Misfit, PageBuf};
use crate::reader::Reader;
use crate::rmgr::multixact::{self, Create, MEMBERS_PER_PAGE, OFFSETS_PER_PAGE};
use crate::rmgr::xact::{Outcome, XactEnd};
use crate::rmgr::{self, slru_pageno};
use crate::version::Major;
use crate::wal::Record;

/// `CLOG_ZEROPAGE` and `COMMIT_TS_ZEROPAGE`.
const ZEROPAGE: u8 = 0x00;
/// `XLOG_PARAMETER_CHANGE`.
const PARAMETER_CHANGE: u8 = 0x60;
const NOT_TOUCHED: Misfit = "record does not touch the page";

/// Applies a record to an SLRU page. A page that does not exist is zeros, as in Postgres' recovery.
pub(super) fn redo(
    page: &mut Option<PageBuf>,
    record: &Record<'_>,
    kind: Slru,
    pageno: u64,
    major: Major,
) -> Result<(), Misfit> {
    let info = record.header.rmgr_info();
    match (kind, record.header.rmid) {
        (Slru::Clog, rmgr::CLOG) | (Slru::CommitTs, rmgr::COMMIT_TS) if info == ZEROPAGE => {
            zero(page, record, pageno, major)
        }
        (Slru::MultiMembers, rmgr::MULTIXACT) if info == multixact::ZERO_MEM_PAGE => {
            zero(page, record, pageno, major)
        }
        (Slru::MultiOffsets, rmgr::MULTIXACT) if info == multixact::ZERO_OFF_PAGE => {
            zero_offsets(page, record, pageno, major)
        }
        (Slru::MultiOffsets | Slru::MultiMembers, rmgr::MULTIXACT) if info == multixact::CREATE_ID => {
            let create = Create::decode(record.main_data).ok_or(DATA_SHORT)?;
            let page = page.get_or_insert_with(PageBuf::zeroed);
            if kind == Slru::MultiOffsets {
                offsets(page, &create, pageno)
            } else {
                members(page, &create, pageno)
            }
        }
        (Slru::CommitTs, rmgr::XLOG) if info == PARAMETER_CHANGE => {
            // Commit timestamps were turned on: the page of the next transaction begins to exist.
            page.get_or_insert_with(PageBuf::zeroed);
            Ok(())
        }
        (Slru::Clog | Slru::CommitTs, rmgr::XACT) => {
            let end = XactEnd::decode(record, major).ok_or(DATA_SHORT)?.ok_or(NOT_TOUCHED)?;
            let page = page.get_or_insert_with(PageBuf::zeroed);
            if kind == Slru::Clog {
                status(page, &end, pageno)
            } else {
                commit_time(page, record, &end, pageno)
            }
        }
        _ => Err(NOT_TOUCHED),
    }
}

fn is_of(record: &Record<'_>, pageno: u64, major: Major) -> Result<(), Misfit> {
    let named = slru_pageno(&mut Reader(record.main_data), major).ok_or(DATA_SHORT)?;
    if named == pageno { Ok(()) } else { Err(NOT_TOUCHED) }
}

fn zero(page: &mut Option<PageBuf>, record: &Record<'_>, pageno: u64, major: Major) -> Result<(), Misfit> {
    is_of(record, pageno, major)?;
    *page = Some(PageBuf::zeroed());
    Ok(())
}

/// Releases before 15.16, 16.12, 17.8 and 18.2 zero a page of offsets only when its first multixact is made, after the
/// one before it, whose record sets the first entry here: an entry alone on its page came that way, and stays.
///
/// Source: `pre_initialized_offsets_page` in `src/backend/access/transam/multixact.c`.
fn zero_offsets(
    page: &mut Option<PageBuf>,
    record: &Record<'_>,
    pageno: u64,
    major: Major,
) -> Result<(), Misfit> {
    is_of(record, pageno, major)?;
    let page = page.get_or_insert_with(PageBuf::zeroed);
    if page.bytes().iter().skip(4).any(|byte| *byte != 0) {
        *page = PageBuf::zeroed();
    }
    Ok(())
}

/// Where the members of a multixact begin, and those of the next one: the end of these.
///
/// Source: `RecordNewMultiXact` in `src/backend/access/transam/multixact.c`.
fn offsets(page: &mut PageBuf, create: &Create<'_>, pageno: u64) -> Result<(), Misfit> {
    for (mid, offset) in [(create.mid, create.offset), (create.next_mid(), create.next_offset())] {
        if u64::from(mid / OFFSETS_PER_PAGE) == pageno {
            page.put((mid % OFFSETS_PER_PAGE) as usize * 4, &offset.to_le_bytes())?;
        }
    }
    Ok(())
}

fn members(page: &mut PageBuf, create: &Create<'_>, pageno: u64) -> Result<(), Misfit> {
    for (number, xid, status) in create.members() {
        if u64::from(number / MEMBERS_PER_PAGE) == pageno {
            let (flags_at, xid_at) = multixact::member_at(number);
            page.put(xid_at, &xid.to_le_bytes())?;
            page.put(flags_at, &[status])?;
        }
    }
    Ok(())
}

/// Writes how a transaction ended for itself and its subtransactions, as far as they are on this page.
///
/// Source: `xact_redo_commit` and `xact_redo_abort` in `src/backend/access/transam/xact.c`, `TransactionIdSetStatusBit` in
/// `clog.c`.
fn status(page: &mut PageBuf, end: &XactEnd<'_>, pageno: u64) -> Result<(), Misfit> {
    let status = match end.outcome {
        Outcome::Committed => 1,
        Outcome::Aborted => 2,
    };
    for xid in end.xids().filter(|xid| u64::from(xid / CLOG_XIDS_PER_PAGE) == pageno) {
        let index = xid % CLOG_XIDS_PER_PAGE;
        let (at, shift) = ((index / 4) as usize, index % 4 * 2);
        let [byte] = page.array_at(at)?;
        page.put(at, &[byte & !(3 << shift) | status << shift])?;
    }
    Ok(())
}

/// Writes when a transaction committed and where it came from, for itself and its subtransactions.
///
/// Source: `TransactionTreeSetCommitTsData` in `src/backend/access/transam/commit_ts.c`.
fn commit_time(
    page: &mut PageBuf,
    record: &Record<'_>,
    end: &XactEnd<'_>,
    pageno: u64,
) -> Result<(), Misfit> {
    const ENTRY_LEN: usize = 10;
    if end.outcome != Outcome::Committed {
        return Err(NOT_TOUCHED);
    }
    let time_us = end.origin.map_or(end.time_us, |(_, time_us)| time_us);
    let origin = record.origin.unwrap_or(0);
    for xid in end.xids().filter(|xid| u64::from(xid / COMMIT_TS_XIDS_PER_PAGE) == pageno) {
        let at = (xid % COMMIT_TS_XIDS_PER_PAGE) as usize * ENTRY_LEN;
        page.put(at, &time_us.to_le_bytes())?;
        page.put(at + 8, &origin.to_le_bytes())?;
    }
    Ok(())
}
