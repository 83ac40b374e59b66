//! Transaction records: commit and abort.

use crate::reader::Reader;
use crate::version::Major;
use crate::wal::{Record, RelTag};

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed, with its subtransactions.
    Committed,
    /// Aborted, with its subtransactions.
    Aborted,
}

/// A commit or abort record, of a plain or a prepared transaction.
///
/// Source: `ParseCommitRecord` and `ParseAbortRecord` in `src/backend/access/rmgrdesc/xactdesc.c`.
#[derive(Clone, Copy, Debug)]
pub struct XactEnd<'a> {
    /// Commit or abort.
    pub outcome: Outcome,
    /// The transaction; the prepared one's, if it was prepared.
    pub xid: u32,
    /// When it ended, by the clock of the server: microseconds since 2000-01-01.
    pub time_us: i64,
    /// Where it came from: position and time on its origin.
    pub origin: Option<(u64, i64)>,
    /// The transaction that was prepared, if it was.
    pub prepared_xid: Option<u32>,
    /// `XACT_XINFO_*` and `XACT_COMPLETION_*`.
    pub xinfo: u32,
    /// Its database and that one's tablespace; zeros if not logged.
    pub database: (u32, u32),
    /// Statistics dropped with it: 12 bytes each, since 18 16.
    pub stats: &'a [u8],
    /// Invalidation messages, 16 bytes each.
    pub messages: &'a [u8],
    subxids: &'a [u8],
    rels: &'a [u8],
}

const OP_MASK: u8 = 0x70;
const COMMIT: u8 = 0x00;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const HAS_INFO: u8 = 0x80;

const HAS_DBINFO: u32 = 1;
const HAS_SUBXACTS: u32 = 1 << 1;
const HAS_RELFILELOCATORS: u32 = 1 << 2;
const HAS_INVALS: u32 = 1 << 3;
const HAS_TWOPHASE: u32 = 1 << 4;
const HAS_ORIGIN: u32 = 1 << 5;
const HAS_GID: u32 = 1 << 7;
const HAS_DROPPED_STATS: u32 = 1 << 8;

impl<'a> XactEnd<'a> {
    /// Reads a record of the transaction manager. `Some(None)` if it ends no transaction, `None` if it is too short.
    pub fn decode(record: &Record<'a>, major: Major) -> Option<Option<Self>> {
        let info = record.header.rmgr_info();
        let (outcome, is_prepared) = match info & OP_MASK {
            COMMIT => (Outcome::Committed, false),
            ABORT => (Outcome::Aborted, false),
            COMMIT_PREPARED => (Outcome::Committed, true),
            ABORT_PREPARED => (Outcome::Aborted, true),
            _ => return Some(None),
        };
        let mut r = Reader(record.main_data);
        let time_us = r.i64()?;
        let xinfo = if info & HAS_INFO == 0 { 0 } else { r.u32()? };
        let database = if xinfo & HAS_DBINFO == 0 { (0, 0) } else { (r.u32()?, r.u32()?) };
        let subxids = array(&mut r, xinfo & HAS_SUBXACTS != 0, 4)?;
        let rels = array(&mut r, xinfo & HAS_RELFILELOCATORS != 0, 12)?;
        let stats = array(&mut r, xinfo & HAS_DROPPED_STATS != 0, major.dropped_stats_len())?;
        let messages = array(&mut r, xinfo & HAS_INVALS != 0, 16)?;
        let prepared_xid = if xinfo & HAS_TWOPHASE == 0 { None } else { Some(r.u32()?) };
        if xinfo & HAS_GID != 0 {
            let len = r.0.iter().position(|b| *b == 0)?;
            r.skip(len + 1)?;
        }
        let origin = if xinfo & HAS_ORIGIN == 0 { None } else { Some((r.u64()?, r.i64()?)) };
        let xid = if is_prepared { prepared_xid? } else { record.header.xid };
        Some(Some(Self {
            outcome,
            xid,
            time_us,
            origin,
            prepared_xid,
            xinfo,
            database,
            stats,
            messages,
            subxids,
            rels,
        }))
    }

    /// Its subtransactions that ended with it.
    pub fn subxids(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.subxids.chunks_exact(4).filter_map(|xid| Reader(xid).u32())
    }

    /// The transaction, then its subtransactions.
    pub fn xids(&self) -> impl Iterator<Item = u32> + use<'a> {
        std::iter::once(self.xid).chain(self.subxids())
    }

    /// The relations whose files are removed with it.
    pub fn dropped_rels(&self) -> impl Iterator<Item = RelTag> + use<'a> {
        self.rels.chunks_exact(12).filter_map(|rel| super::rel_tag(&mut Reader(rel)))
    }
}

/// A counted array of items of one length; empty if it is not there.
fn array<'a>(r: &mut Reader<'a>, is_there: bool, item_len: usize) -> Option<&'a [u8]> {
    if !is_there {
        return Some(&[]);
    }
    let n = usize::try_from(r.u32()?).ok()?;
    r.bytes(n.checked_mul(item_len)?)
}
