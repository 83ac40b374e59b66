//! What a record means depends on: the major that wrote it, and the reader's time zone.

use super::text::put;
use super::{Zone, btree, gin, heap, index, small, standby, v15, xact, xlog};
use crate::rmgr;
use crate::version::Major;
use crate::wal::Record;

/// Where records are described.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'z> {
    /// The major version that wrote them.
    pub major: Major,
    /// The time zone that timestamps are shown in.
    pub zone: &'z Zone,
}

impl Scene<'_> {
    /// Appends what `pg_waldump` of that major says of the record, between its name and its block references.
    ///
    /// A record too short for its kind is described as far as it goes, and then said to be too short.
    ///
    /// Source: `src/backend/access/rmgrdesc`.
    pub fn describe(&self, out: &mut Vec<u8>, record: &Record<'_>) {
        if self.describe_whole(out, record).is_none() {
            put!(out; " (record too short)");
        }
    }

    fn describe_whole(&self, out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
        let major = self.major;
        match (record.header.rmid, major) {
            (rmgr::HEAP, Major::V15) => v15::heap(out, record),
            (rmgr::HEAP2, Major::V15) => v15::heap2(out, record),
            (rmgr::BTREE, Major::V15) => v15::btree(out, record),
            (rmgr::HEAP, _) => heap::heap(out, record, major),
            (rmgr::HEAP2, _) => heap::heap2(out, record, major),
            (rmgr::BTREE, _) => btree::btree(out, record, major),
            (rmgr::XLOG, _) => xlog::xlog(out, record, self),
            (rmgr::XACT, _) => xact::xact(out, record, self),
            (rmgr::SMGR, _) => small::storage(out, record, major),
            (rmgr::CLOG, _) => small::clog(out, record, major),
            (rmgr::DBASE, _) => small::database(out, record),
            (rmgr::TBLSPC, _) => small::tablespace(out, record),
            (rmgr::MULTIXACT, _) => small::multixact(out, record, major),
            (rmgr::RELMAP, _) => small::relation_map(out, record),
            (rmgr::STANDBY, _) => standby::standby(out, record, major),
            (rmgr::HASH, _) => index::hash(out, record, major),
            (rmgr::GIN, _) => gin::gin(out, record),
            (rmgr::GIST, _) => index::gist(out, record, major),
            (rmgr::SEQ, _) => small::sequence(out, record),
            (rmgr::SPGIST, _) => index::spgist(out, record, major),
            (rmgr::BRIN, _) => index::brin(out, record),
            (rmgr::COMMIT_TS, _) => small::commit_ts(out, record, major),
            (rmgr::REPLORIGIN, _) => small::replication_origin(out, record),
            (rmgr::GENERIC, _) => small::generic(out, record),
            (rmgr::LOGICALMSG, _) => small::logical_message(out, record),
            (rmid, _) => {
                put!(out; "rmid: ", rmid);
                Some(())
            }
        }
    }
}
