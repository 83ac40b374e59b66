//! What a record does to state that is kept under keys of its own: one value from that record on.

use super::{Cut, full_xid, state_file};
use crate::layer::{Key, Kind};
use crate::reader::Reader;
use crate::redo::Slru;
use crate::rmgr::multixact::OFFSETS_PER_PAGE;
use crate::rmgr::xact::XactEnd;
use crate::rmgr::{self, slru_pageno};
use crate::state::Prepare;
use crate::version::Major;
use crate::wal::Record;

/// `CLOG_TRUNCATE` and `COMMIT_TS_TRUNCATE`.
const SLRU_TRUNCATE: u8 = 0x10;
const MULTIXACT_TRUNCATE_ID: u8 = 0x30;
const RELMAP_UPDATE: u8 = 0x00;
const TBLSPC_CREATE: u8 = 0x00;
const TBLSPC_DROP: u8 = 0x10;
const DBASE_CREATE_FILE_COPY: u8 = 0x00;
const DBASE_CREATE_WAL_LOG: u8 = 0x10;
const DBASE_DROP: u8 = 0x20;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is these bytes.
    Set(Key, Vec<u8>),
    /// It is what the same thing of another database is: tablespace, database.
    Copied(Key, u32, u32),
    /// It does not exist.
    Gone(Key),
}

/// Calls `each` for everything that a record changes of relation maps, databases, tablespaces, prepared transactions, and
/// of which pages of an SLRU exist. `None` if the record is too short.
///
/// `end` is the record's transaction, if it ends one; `next_xid` as of before the record.
pub fn changes(
    record: &Record<'_>,
    end: Option<&XactEnd<'_>>,
    next_xid: u64,
    major: Major,
    each: &mut impl FnMut(Change),
) -> Option<()> {
    let mut r = Reader(record.main_data);
    match (record.header.rmid, record.header.rmgr_info()) {
        (rmgr::XACT, _) => {
            if let Some(xid) = end.and_then(|end| end.prepared_xid) {
                each(Change::Gone(Key::two_phase(full_xid(xid, next_xid))));
            } else if let Some(prepare) = Prepare::decode(record)? {
                let key = Key::two_phase(full_xid(prepare.xid, next_xid));
                each(Change::Set(key, state_file(record)));
            }
        }
        (rmgr::CLOG, SLRU_TRUNCATE) => each(cut(Slru::Clog, Cut::Before(pageno(&mut r, major)?))),
        (rmgr::COMMIT_TS, SLRU_TRUNCATE) => each(cut(Slru::CommitTs, Cut::Before(pageno(&mut r, major)?))),
        (rmgr::MULTIXACT, MULTIXACT_TRUNCATE_ID) => {
            r.skip(8)?;
            let (oldest, first_member, end_member) = (r.u32()?, r.u32()?, r.u32()?);
            // The last one before is asked for, lest the page is beyond the newest.
            let last = if oldest == 1 { u32::MAX } else { oldest.wrapping_sub(1) };
            each(cut(Slru::MultiMembers, Cut::of_members(first_member, end_member)));
            each(cut(Slru::MultiOffsets, Cut::Before(last / OFFSETS_PER_PAGE)));
        }
        (rmgr::RELMAP, RELMAP_UPDATE) => {
            let (db, spc, len) = (r.u32()?, r.u32()?, r.u32()?);
            let map = r.bytes(usize::try_from(len).ok()?)?;
            each(Change::Set(Key::of_database(Kind::RelMap, spc, db), map.to_vec()));
        }
        (rmgr::TBLSPC, TBLSPC_CREATE) => {
            let spc = r.u32()?;
            let path = r.0.split(|byte| *byte == 0).next().unwrap_or_default();
            each(Change::Set(Key::tablespace(spc), path.to_vec()));
        }
        (rmgr::TBLSPC, TBLSPC_DROP) => each(Change::Gone(Key::tablespace(r.u32()?))),
        (rmgr::DBASE, DBASE_CREATE_FILE_COPY) => {
            let (db, spc, src_db, src_spc) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
            each(Change::Copied(Key::of_database(Kind::RelMap, spc, db), src_spc, src_db));
            each(Change::Set(Key::of_database(Kind::Database, spc, db), Vec::new()));
        }
        (rmgr::DBASE, DBASE_CREATE_WAL_LOG) => {
            let (db, spc) = (r.u32()?, r.u32()?);
            each(Change::Set(Key::of_database(Kind::Database, spc, db), Vec::new()));
        }
        (rmgr::DBASE, DBASE_DROP) => {
            let (db, spaces) = (r.u32()?, r.u32()?);
            for _ in 0..spaces {
                let spc = r.u32()?;
                each(Change::Gone(Key::of_database(Kind::RelMap, spc, db)));
                each(Change::Gone(Key::of_database(Kind::Database, spc, db)));
            }
        }
        _ => {}
    }
    Some(())
}

fn cut(kind: Slru, cut: Cut) -> Change {
    Change::Set(Key::slru_cut(kind), cut.encode())
}

fn pageno(r: &mut Reader<'_>, major: Major) -> Option<u32> {
    u32::try_from(slru_pageno(r, major)?).ok()
}
