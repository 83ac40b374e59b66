//! Transactions: when each ended and how, what it changed, and how much WAL that took.

use std::collections::{BTreeMap, HashMap};

use super::share::{Share, shares};
use crate::Lsn;
use crate::reader::Reader;
use crate::rmgr;
use crate::rmgr::xact::{Outcome, XactEnd};
use crate::version::Major;
use crate::wal::{RawRecord, RelTag, WalError};

/// How a transaction stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Neither committed nor aborted as far as the WAL goes.
    #[default]
    Open,
    /// Prepared, and no more.
    Prepared,
    /// Committed.
    Committed,
    /// Aborted.
    Aborted,
    /// Cut off by the end of the server.
    Lost,
}

impl State {
    /// In a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "in progress",
            Self::Prepared => "prepared",
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::Lost => "lost in a crash",
        }
    }
}

/// What a transaction did to one relation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Records whose first block reference is to it.
    pub records: u64,
    /// Their bytes without images, and the bytes of images of its pages.
    pub bytes: u64,
    /// The latter alone.
    pub image_bytes: u64,
    /// Heap tuples inserted.
    pub inserted: u64,
    /// Heap tuples updated.
    pub updated: u64,
    /// Heap tuples deleted.
    pub deleted: u64,
}

/// A transaction with those of its subtransactions that ended as it did.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// Its number; the prepared transaction's, if it was prepared.
    pub xid: u32,
    /// How it stands.
    pub state: State,
    /// When it ended, by the clock of the server: microseconds since 2000-01-01.
    pub time_us: Option<i64>,
    /// Start of the first of its records.
    pub first: Lsn,
    /// End of the last of them.
    pub end: Lsn,
    /// All of its records.
    pub records: u64,
    /// All of their bytes.
    pub bytes: u64,
    /// The bytes of full-page images among them.
    pub image_bytes: u64,
    /// Subtransactions whose records are counted here.
    pub subxids: Vec<u32>,
    /// By relation.
    pub changes: BTreeMap<RelTag, Change>,
}

impl Transaction {
    fn add(&mut self, raw: &RawRecord<'_>) -> Result<(), WalError> {
        if self.records == 0 {
            self.first = raw.start;
        }
        self.end = raw.end;
        self.records += 1;
        self.bytes += u64::from(raw.header.tot_len);
        shares(raw, |share| match share {
            Share::Record(Some(rel), len, main) => {
                let change = self.changes.entry(rel).or_default();
                let (inserted, updated, deleted) = tuples(raw, main);
                change.records += 1;
                change.bytes += u64::from(len);
                change.inserted += inserted;
                change.updated += updated;
                change.deleted += deleted;
            }
            Share::Record(None, ..) => {}
            Share::Image(rel, len) => {
                self.image_bytes += u64::from(len);
                let change = self.changes.entry(rel).or_default();
                change.bytes += u64::from(len);
                change.image_bytes += u64::from(len);
            }
        })
    }

    fn absorb(&mut self, other: Self) {
        if other.records > 0 {
            self.first = if self.records == 0 { other.first } else { self.first.min(other.first) };
            self.end = self.end.max(other.end);
        }
        self.records += other.records;
        self.bytes += other.bytes;
        self.image_bytes += other.image_bytes;
        for (rel, from) in other.changes {
            let change = self.changes.entry(rel).or_default();
            change.records += from.records;
            change.bytes += from.bytes;
            change.image_bytes += from.image_bytes;
            change.inserted += from.inserted;
            change.updated += from.updated;
            change.deleted += from.deleted;
        }
        self.subxids.extend(other.subxids);
    }
}

/// Follows records and gives out transactions as they end. Holds those that have not ended.
///
/// A subtransaction that is rolled back alone ends as a transaction of its own: the WAL does not say whose it is.
#[derive(Debug, Default)]
pub struct Transactions {
    open: HashMap<u32, Transaction>,
    ended: Vec<Transaction>,
}

const XACT_OP_MASK: u8 = 0x70;
const XACT_PREPARE: u8 = 0x10;
const XLOG_CHECKPOINT_SHUTDOWN: u8 = 0x00;
const XLOG_END_OF_RECOVERY: u8 = 0x90;
const HEAP_OP_MASK: u8 = 0x70;
const HEAP_INSERT: u8 = 0x00;
const HEAP_DELETE: u8 = 0x10;
const HEAP_UPDATE: u8 = 0x20;
const HEAP_HOT_UPDATE: u8 = 0x40;
const HEAP2_MULTI_INSERT: u8 = 0x50;

impl Transactions {
    /// Takes the next record.
    ///
    /// # Errors
    /// As [`RawRecord::decode`].
    pub fn add(&mut self, raw: &RawRecord<'_>, major: Major) -> Result<(), WalError> {
        let header = &raw.header;
        match header.rmid {
            rmgr::XACT => {
                if let Some(end) = XactEnd::decode(&raw.decode()?, major).flatten() {
                    return self.end(raw, &end);
                }
            }
            // No transaction but a prepared one lives on after these.
            rmgr::XLOG if matches!(header.rmgr_info(), XLOG_CHECKPOINT_SHUTDOWN | XLOG_END_OF_RECOVERY) => {
                self.lose();
            }
            _ => {}
        }
        if header.xid == 0 {
            return Ok(());
        }
        let open = self.open.entry(header.xid).or_default();
        open.xid = header.xid;
        open.add(raw)?;
        if header.rmid == rmgr::XACT && header.rmgr_info() & XACT_OP_MASK == XACT_PREPARE {
            open.state = State::Prepared;
        }
        Ok(())
    }

    /// The transactions that ended since the last call, in the order of their ends.
    pub fn take(&mut self) -> Vec<Transaction> {
        std::mem::take(&mut self.ended)
    }

    /// Those that have not ended, by number.
    pub fn unfinished(&self) -> Vec<Transaction> {
        let mut open: Vec<_> = self.open.values().cloned().collect();
        open.sort_by_key(|transaction| transaction.xid);
        open
    }

    fn end(&mut self, raw: &RawRecord<'_>, end: &XactEnd<'_>) -> Result<(), WalError> {
        let mut ended = self.open.remove(&end.xid).unwrap_or_default();
        ended.xid = end.xid;
        for subxid in end.subxids() {
            ended.absorb(self.open.remove(&subxid).unwrap_or_default());
            ended.subxids.push(subxid);
        }
        ended.add(raw)?;
        ended.time_us = Some(end.time_us);
        ended.state = if end.outcome == Outcome::Committed { State::Committed } else { State::Aborted };
        self.ended.push(ended);
        Ok(())
    }

    fn lose(&mut self) {
        let mut lost = self.unfinished();
        lost.retain(|transaction| transaction.state != State::Prepared);
        for mut transaction in lost {
            self.open.remove(&transaction.xid);
            transaction.state = State::Lost;
            self.ended.push(transaction);
        }
    }
}

/// Inserts, updates and deletes of heap tuples in a record.
fn tuples(raw: &RawRecord<'_>, main: &[u8]) -> (u64, u64, u64) {
    match (raw.header.rmid, raw.header.info & HEAP_OP_MASK) {
        (rmgr::HEAP, HEAP_INSERT) => (1, 0, 0),
        (rmgr::HEAP, HEAP_UPDATE | HEAP_HOT_UPDATE) => (0, 1, 0),
        (rmgr::HEAP, HEAP_DELETE) => (0, 0, 1),
        (rmgr::HEAP2, HEAP2_MULTI_INSERT) => {
            // `xl_heap_multi_insert`: flags, padding, number of tuples.
            let count = main.get(2..).and_then(|rest| Reader(rest).u16());
            (count.unwrap_or(0).into(), 0, 0)
        }
        _ => (0, 0, 0),
    }
}
