//! Counters, settings and origins: what a server holds in its control file and its memory, as far as WAL tells.

use std::collections::BTreeMap;

use super::{Prepare, full_xid, precedes};
use crate::Lsn;
use crate::reader::Reader;
use crate::rmgr;
use crate::rmgr::multixact::{self, Create};
use crate::rmgr::xact::{Outcome, XactEnd};
use crate::version::Major;
use crate::wal::Record;
use crate::wal::event::{CheckPoint, Event, Parameters};

const XLOG_NEXTOID: u8 = 0x30;
const MULTIXACT_TRUNCATE_ID: u8 = 0x30;
const COMMIT_TS_TRUNCATE: u8 = 0x10;
const STANDBY_RUNNING_XACTS: u8 = 0x10;
const REPLORIGIN_SET: u8 = 0x00;
const REPLORIGIN_DROP: u8 = 0x10;
/// The first transaction id that is not special.
const FIRST_NORMAL_XID: u32 = 3;
/// An origin that stands for: none of ours, do not replicate.
const DO_NOT_REPLICATE: u16 = u16::MAX;

/// The state of a server at one LSN.
///
/// Source: `StartupXLOG` and `xlog_redo` in `src/backend/access/transam/xlog.c`, and the redo functions of the resource
/// managers named below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The major version that writes the WAL.
    pub major: Major,
    /// Start of the last checkpoint record.
    pub checkpoint_lsn: Lsn,
    /// What that record says.
    pub checkpoint: CheckPoint,
    /// What a shutdown checkpoint would say here of counters and limits. `redo`, `time` and `oldest_active_xid` are those
    /// of the last checkpoint; `next_oid` is the first that is not set aside in WAL, so a server may have a lower one.
    pub now: CheckPoint,
    /// Settings that decide what WAL carries.
    pub parameters: Parameters,
    /// How far each replication origin has been replayed: its number, a position on it.
    pub origins: BTreeMap<u16, Lsn>,
}

impl Control {
    /// As a control file has it; `None` if the bytes are too short. Its checksum is the caller's to check.
    ///
    /// A base backup's is of its end, not of where its WAL begins: counters may be ahead of the WAL before that.
    ///
    /// Source: `ControlFileData` in `src/include/catalog/pg_control.h`, 15 to 18.
    pub fn from_control_file(file: &[u8], major: Major) -> Option<Self> {
        let field = |at: usize| file.get(at..).map(Reader);
        let checkpoint = CheckPoint::decode(file.get(40..)?, major)?;
        let mut numbers = field(180)?;
        let mut next = || numbers.i32();
        let parameters = Parameters {
            max_connections: next()?,
            max_worker_processes: next()?,
            max_wal_senders: next()?,
            max_prepared_xacts: next()?,
            max_locks_per_xact: next()?,
            wal_level: field(172)?.i32()?,
            wal_log_hints: field(176)?.u8()? != 0,
            track_commit_timestamp: field(200)?.u8()? != 0,
        };
        let checkpoint_lsn = Lsn(field(32)?.u64()?);
        Some(Self {
            major,
            checkpoint_lsn,
            checkpoint,
            now: checkpoint,
            parameters,
            origins: BTreeMap::new(),
        })
    }

    /// Takes a record into account. Returns whether it says more than that numbers were used up; `None` if it is too
    /// short.
    ///
    /// `end` is the record's transaction, if it ends one.
    pub fn follow(&mut self, record: &Record<'_>, end: Option<&XactEnd<'_>>) -> Option<bool> {
        self.pass_xid(record.header.xid);
        let mut r = Reader(record.main_data);
        match (record.header.rmid, record.header.rmgr_info()) {
            (rmgr::XACT, _) => self.transaction(record, end)?,
            (rmgr::XLOG, XLOG_NEXTOID) => {
                self.now.next_oid = r.u32()?;
                return Some(true);
            }
            (rmgr::XLOG, _) => {
                let event = Event::decode(record, Some(self.major)).ok()?;
                return Some(event.is_some_and(|event| self.event(record.start, &event)));
            }
            (rmgr::MULTIXACT, multixact::CREATE_ID) => {
                let create = Create::decode(record.main_data)?;
                self.pass_multi(create.next_mid(), create.end_offset());
                for (_, xid, _) in create.members() {
                    self.pass_xid(xid);
                }
            }
            (rmgr::MULTIXACT, MULTIXACT_TRUNCATE_ID) => {
                let db = r.u32()?;
                r.skip(4)?;
                (self.now.oldest_multi, self.now.oldest_multi_db) = (r.u32()?, db);
                return Some(true);
            }
            (rmgr::COMMIT_TS, COMMIT_TS_TRUNCATE) => {
                r.skip(if self.major >= Major::V17 { 8 } else { 4 })?;
                self.pass_oldest_commit_ts(r.u32()?);
                return Some(true);
            }
            (rmgr::STANDBY, STANDBY_RUNNING_XACTS) => {
                r.skip(12)?;
                self.pass_xid(r.u32()?.wrapping_sub(1));
            }
            (rmgr::REPLORIGIN, REPLORIGIN_SET) => {
                let (lsn, number, is_forced) = (Lsn(r.u64()?), r.u16()?, r.u8()? != 0);
                if is_forced {
                    self.origins.insert(number, lsn);
                } else {
                    self.pass_origin(number, lsn);
                }
                return Some(true);
            }
            (rmgr::REPLORIGIN, REPLORIGIN_DROP) => {
                self.origins.remove(&r.u16()?);
                return Some(true);
            }
            _ => {}
        }
        Some(false)
    }

    /// Source: `xact_redo` in `src/backend/access/transam/xact.c`, `TransactionTreeSetCommitTsData` in `commit_ts.c`.
    fn transaction(&mut self, record: &Record<'_>, end: Option<&XactEnd<'_>>) -> Option<()> {
        let origin = record.origin.unwrap_or_default();
        if let Some(end) = end {
            let mut last = end.xid;
            for xid in end.xids() {
                self.pass_xid(xid);
                last = xid;
            }
            if end.outcome == Outcome::Committed && self.parameters.track_commit_timestamp {
                let newest = &mut self.now.newest_commit_ts_xid;
                if *newest == 0 || precedes(*newest, last) {
                    *newest = last;
                }
            }
            if let Some((lsn, _)) = end.origin {
                self.pass_origin(origin, Lsn(lsn));
            }
        } else if let Some(prepare) = Prepare::decode(record)? {
            self.pass_xid(prepare.xid);
            for xid in prepare.subxids() {
                self.pass_xid(xid);
            }
            self.pass_origin(origin, Lsn(prepare.origin_lsn));
        }
        Some(())
    }

    /// Returns whether anything came of it.
    fn event(&mut self, start: Lsn, event: &Event) -> bool {
        match event {
            Event::Checkpoint { online, body } => {
                if *online {
                    self.online_checkpoint(body);
                } else {
                    self.now = *body;
                }
                (self.checkpoint_lsn, self.checkpoint) = (start, *body);
            }
            Event::FpwChange { full_page_writes } => self.now.full_page_writes = *full_page_writes,
            Event::ParameterChange(parameters) => {
                let was_tracked = self.parameters.track_commit_timestamp;
                if !parameters.track_commit_timestamp {
                    (self.now.oldest_commit_ts_xid, self.now.newest_commit_ts_xid) = (0, 0);
                } else if !was_tracked && self.now.oldest_commit_ts_xid == 0 {
                    let next = self.now.next_xid as u32;
                    (self.now.oldest_commit_ts_xid, self.now.newest_commit_ts_xid) = (next, next);
                }
                self.parameters = *parameters;
            }
            Event::EndOfRecovery { tli, prev_tli } => {
                (self.now.tli, self.now.prev_tli) = (*tli, *prev_tli);
            }
            Event::Switch | Event::OverwriteContrecord { .. } | Event::BackupEnd { .. } => return false,
        }
        true
    }

    /// It has counters of before its record: they only go up. Its next OID counts nothing.
    fn online_checkpoint(&mut self, body: &CheckPoint) {
        self.now.next_xid = self.now.next_xid.max(body.next_xid);
        self.pass_multi(body.next_multi, body.next_multi_offset);
        if precedes(self.now.oldest_xid, body.oldest_xid) {
            (self.now.oldest_xid, self.now.oldest_xid_db) = (body.oldest_xid, body.oldest_xid_db);
        }
        if precedes(self.now.oldest_multi, body.oldest_multi) {
            (self.now.oldest_multi, self.now.oldest_multi_db) = (body.oldest_multi, body.oldest_multi_db);
        }
        self.pass_oldest_commit_ts(body.oldest_commit_ts_xid);
        (self.now.redo, self.now.time, self.now.oldest_active_xid) =
            (body.redo, body.time, body.oldest_active_xid);
        (self.now.tli, self.now.prev_tli) = (body.tli, body.prev_tli);
    }

    fn pass_xid(&mut self, xid: u32) {
        let next = self.now.next_xid;
        if xid < FIRST_NORMAL_XID || precedes(xid, next as u32) {
            return;
        }
        let next = full_xid(xid, next).wrapping_add(1);
        let skipped = FIRST_NORMAL_XID.saturating_sub(next as u32);
        self.now.next_xid = next.wrapping_add(skipped.into());
    }

    fn pass_multi(&mut self, next: u32, next_offset: u32) {
        if precedes(self.now.next_multi, next) {
            self.now.next_multi = next;
        }
        if precedes(self.now.next_multi_offset, next_offset) {
            self.now.next_multi_offset = next_offset;
        }
    }

    fn pass_oldest_commit_ts(&mut self, xid: u32) {
        let oldest = &mut self.now.oldest_commit_ts_xid;
        if *oldest != 0 && xid != 0 && precedes(*oldest, xid) {
            *oldest = xid;
        }
    }

    /// Source: `replorigin_advance` in `src/backend/replication/logical/origin.c`.
    fn pass_origin(&mut self, number: u16, lsn: Lsn) {
        if number != 0 && number != DO_NOT_REPLICATE {
            let held = self.origins.entry(number).or_default();
            *held = lsn.max(*held);
        }
    }

    /// As stored.
    ///
    /// ```text
    /// | major u8 | checkpoint lsn u64 | checkpoint 88 | now 88 | parameters 26 | origins u16 | number u16, lsn u64 | … |
    /// ```
    ///
    /// Little-endian; checkpoints and parameters are as in records of that major.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.major as u8];
        out.extend(self.checkpoint_lsn.0.to_le_bytes());
        out.extend(self.checkpoint.encode());
        out.extend(self.now.encode());
        out.extend(self.parameters.encode());
        out.extend((self.origins.len() as u16).to_le_bytes());
        for (number, lsn) in &self.origins {
            out.extend(number.to_le_bytes());
            out.extend(lsn.0.to_le_bytes());
        }
        out
    }

    /// Takes one off the front; `None` if the bytes are not one.
    pub fn decode(r: &mut Reader<'_>) -> Option<Self> {
        let major = Major::from_number(r.u8()?)?;
        let checkpoint_lsn = Lsn(r.u64()?);
        let checkpoint = CheckPoint::decode(r.bytes(CheckPoint::LEN)?, major)?;
        let now = CheckPoint::decode(r.bytes(CheckPoint::LEN)?, major)?;
        let parameters = Parameters::decode(r.bytes(Parameters::LEN)?)?;
        let mut origins = BTreeMap::new();
        for _ in 0..r.u16()? {
            origins.insert(r.u16()?, Lsn(r.u64()?));
        }
        Some(Self { major, checkpoint_lsn, checkpoint, now, parameters, origins })
    }
}
