//! What a record touches: the pages it changes, named or not, and the sizes.

use super::vm::{self, HEAPBLOCKS_PER_PAGE};
use super::{RedoError, Slru, Target};
use crate::reader::Reader;
use crate::rmgr;
use crate::rmgr::multixact::{self, Create, MEMBERS_PER_PAGE, OFFSETS_PER_PAGE};
use crate::rmgr::xact::{Outcome, XactEnd};
use crate::version::Major;
use crate::wal::{Fork, Record, RelTag};

/// What a page is that does not exist when a record comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An error, unless the record starts the page (`will_init`, `has_image`).
    Refused,
    /// Zeros: the record brings it into existence, and it may be the first of its chain.
    Zeros,
    /// Nothing: the record has no effect then.
    Skipped,
}

/// One effect of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// [`super::redo`] has work on this page.
    Page {
        /// The page. Never of a free space map.
        target: Target,
        /// Redo rebuilds it from zeros: nothing older is needed.
        will_init: bool,
        /// Redo replaces it by an image: nothing older is needed.
        has_image: bool,
        /// What if it does not exist.
        missing: Missing,
    },
    /// A fork exists from here on, empty if it did not before.
    Created {
        /// Relation.
        rel: RelTag,
        /// Fork.
        fork: Fork,
    },
    /// A fork has at most this many blocks.
    Truncated {
        /// Relation.
        rel: RelTag,
        /// Main or visibility map.
        fork: Fork,
        /// Blocks that stay.
        blocks: u32,
    },
    /// All forks of a relation are gone.
    Dropped {
        /// Relation.
        rel: RelTag,
    },
    /// The part of a database that lies in one tablespace is gone.
    DatabaseDropped {
        /// Tablespace.
        spc: u32,
        /// Database.
        db: u32,
    },
    /// The part of a database that lies in one tablespace is replaced by a copy of another, as of this record.
    DatabaseCopied {
        /// Tablespace copied from.
        src_spc: u32,
        /// Database copied from.
        src_db: u32,
        /// Tablespace copied to.
        spc: u32,
        /// Database copied to.
        db: u32,
    },
}

impl Touched {
    /// Whether a page is part of its fork from here on: the fork has at least `blkno + 1` blocks.
    pub fn extends(&self) -> bool {
        matches!(
            self,
            Self::Page { will_init: true, .. }
                | Self::Page { has_image: true, .. }
                | Self::Page { missing: Missing::Zeros, .. }
        )
    }
}

const XLOG_FPI_FOR_HINT: u8 = 0xA0;
const HEAP2_VISIBLE: u8 = 0x40;
const SMGR_CREATE: u8 = 0x10;
const SMGR_TRUNCATE: u8 = 0x20;
const SMGR_TRUNCATE_HEAP: u32 = 1;
const SMGR_TRUNCATE_VM: u32 = 2;
/// `CLOG_ZEROPAGE` and `COMMIT_TS_ZEROPAGE`.
const SLRU_ZEROPAGE: u8 = 0x00;
const DBASE_CREATE_FILE_COPY: u8 = 0x00;
const DBASE_DROP: u8 = 0x20;

/// Transactions whose status fits on one page of `pg_xact`.
pub const CLOG_XIDS_PER_PAGE: u32 = 8192 * 4;
/// Transactions whose commit time fits on one page of `pg_commit_ts`.
pub const COMMIT_TS_XIDS_PER_PAGE: u32 = 8192 / 10;

/// Calls `each` for everything a record touches.
///
/// Order: pages first, then sizes. A page is reported once a record. Block references to free space maps and those
/// that redo leaves alone are left out.
///
/// # Errors
/// `Malformed` if the record is too short for what it claims. Nothing reported before may be used then.
pub fn touches(record: &Record<'_>, major: Major, each: &mut impl FnMut(Touched)) -> Result<(), RedoError> {
    blocks(record, each);
    let malformed = |what| RedoError::malformed(record, what);
    match record.header.rmid {
        rmgr::HEAP | rmgr::HEAP2 => heap(record, each).ok_or_else(|| malformed("heap record")),
        rmgr::XACT => xact(record, major, each).ok_or_else(|| malformed("transaction record")),
        rmgr::SMGR => smgr(record, each).ok_or_else(|| malformed("storage record")),
        rmgr::CLOG => zero_page(record, Slru::Clog, major, each).ok_or_else(|| malformed("clog record")),
        rmgr::COMMIT_TS => {
            zero_page(record, Slru::CommitTs, major, each).ok_or_else(|| malformed("commit time record"))
        }
        rmgr::MULTIXACT => multixact(record, major, each).ok_or_else(|| malformed("multixact record")),
        rmgr::DBASE => dbase(record, each).ok_or_else(|| malformed("database record")),
        _ => Ok(()),
    }
}

fn blocks(record: &Record<'_>, each: &mut impl FnMut(Touched)) {
    for block in &record.blocks {
        let has_image = block.applies_image();
        if block.tag.fork == Fork::Fsm || is_left_alone(record, block.id) && !has_image {
            continue;
        }
        let missing = if sets_vm(record, block.id) { Missing::Zeros } else { Missing::Refused };
        let target = Target::Block(block.tag);
        each(Touched::Page { target, will_init: block.will_init, has_image, missing });
    }
}

/// Whether the record names the block but does nothing to it, unless it has an image.
fn is_left_alone(record: &Record<'_>, block: u8) -> bool {
    const HASH_MOVE_PAGE_CONTENTS: u8 = 0x70;
    const HASH_SQUEEZE_PAGE: u8 = 0x80;
    const HASH_DELETE: u8 = 0x90;
    match (record.header.rmid, record.header.rmgr_info()) {
        // With full-page writes off the image is left out.
        (rmgr::XLOG, XLOG_FPI_FOR_HINT) => true,
        // The bucket's first page, to be locked.
        (rmgr::HASH, HASH_MOVE_PAGE_CONTENTS | HASH_SQUEEZE_PAGE | HASH_DELETE) => block == 0,
        _ => false,
    }
}

/// Whether this block is the page of the visibility map whose bits the record sets.
pub(super) fn sets_vm(record: &Record<'_>, block: u8) -> bool {
    let header = &record.header;
    header.rmid == rmgr::HEAP2 && header.rmgr_info() & 0x70 == HEAP2_VISIBLE && block == 0
}

fn zeros_if_missing(target: Target, will_init: bool) -> Touched {
    Touched::Page { target, will_init, has_image: false, missing: Missing::Zeros }
}

fn heap(record: &Record<'_>, each: &mut impl FnMut(Touched)) -> Option<()> {
    let [old, new] = vm::unregistered_clears(record)?;
    if let Some(clear) = old {
        each(zeros_if_missing(Target::Block(clear.page()), false));
    }
    if let Some(clear) = new.filter(|new| old.is_none_or(|old| old.page() != new.page())) {
        each(zeros_if_missing(Target::Block(clear.page()), false));
    }
    Some(())
}

fn xact(record: &Record<'_>, major: Major, each: &mut impl FnMut(Touched)) -> Option<()> {
    let Some(end) = XactEnd::decode(record, major)? else { return Some(()) };
    each_page(Slru::Clog, end.xids().map(|xid| xid / CLOG_XIDS_PER_PAGE), each);
    for rel in end.dropped_rels() {
        each(Touched::Dropped { rel });
    }
    Some(())
}

/// Reports pages of an SLRU, each once.
fn each_page(kind: Slru, numbers: impl Iterator<Item = u32>, each: &mut impl FnMut(Touched)) {
    let mut seen: Vec<u32> = Vec::new();
    for pageno in numbers {
        // What stands next to each other is mostly on the same page.
        if seen.last() == Some(&pageno) || seen.contains(&pageno) {
            continue;
        }
        seen.push(pageno);
        each(zeros_if_missing(Target::Slru { kind, pageno: pageno.into() }, false));
    }
}

/// Calls `each` for the pages of `pg_commit_ts` that a record touches while `track_commit_timestamp` is on.
///
/// Apart from [`touches`] because the record does not say whether it was.
///
/// # Errors
/// As [`touches`].
pub fn commit_ts_touches(
    record: &Record<'_>,
    major: Major,
    each: &mut impl FnMut(Touched),
) -> Result<(), RedoError> {
    if record.header.rmid != rmgr::XACT {
        return Ok(());
    }
    let end = XactEnd::decode(record, major);
    let end = end.ok_or_else(|| RedoError::malformed(record, "transaction record"))?;
    if let Some(end) = end.filter(|end| end.outcome == Outcome::Committed) {
        each_page(Slru::CommitTs, end.xids().map(|xid| xid / COMMIT_TS_XIDS_PER_PAGE), each);
    }
    Ok(())
}

fn multixact(record: &Record<'_>, major: Major, each: &mut impl FnMut(Touched)) -> Option<()> {
    let pageno = || rmgr::slru_pageno(&mut Reader(record.main_data), major);
    match record.header.rmgr_info() {
        multixact::ZERO_OFF_PAGE => {
            // Not a beginning: the first entry may have been set before. See redo.
            let target = Target::Slru { kind: Slru::MultiOffsets, pageno: pageno()? };
            each(zeros_if_missing(target, false));
        }
        multixact::ZERO_MEM_PAGE => {
            let target = Target::Slru { kind: Slru::MultiMembers, pageno: pageno()? };
            each(zeros_if_missing(target, true));
        }
        multixact::CREATE_ID => {
            let create = Create::decode(record.main_data)?;
            let mids = [create.mid, create.next_mid()].map(|mid| mid / OFFSETS_PER_PAGE);
            each_page(Slru::MultiOffsets, mids.into_iter(), each);
            let members = create.members().map(|(number, ..)| number / MEMBERS_PER_PAGE);
            each_page(Slru::MultiMembers, members, each);
        }
        _ => {}
    }
    Some(())
}

fn smgr(record: &Record<'_>, each: &mut impl FnMut(Touched)) -> Option<()> {
    let mut main = Reader(record.main_data);
    match record.header.rmgr_info() {
        SMGR_CREATE => {
            let rel = rmgr::rel_tag(&mut main)?;
            let fork = Fork::from_number(u8::try_from(main.u32()?).ok()?)?;
            if fork != Fork::Fsm {
                each(Touched::Created { rel, fork });
            }
        }
        SMGR_TRUNCATE => {
            let (blkno, rel, flags) = (main.u32()?, rmgr::rel_tag(&mut main)?, main.u32()?);
            let keeps_tail = blkno % HEAPBLOCKS_PER_PAGE != 0;
            if flags & SMGR_TRUNCATE_VM != 0 {
                let tail = vm::page_of(rel, blkno);
                if keeps_tail {
                    let target = Target::Block(tail);
                    let missing = Missing::Skipped;
                    each(Touched::Page { target, will_init: false, has_image: false, missing });
                }
                let blocks = tail.blkno + u32::from(keeps_tail);
                each(Touched::Truncated { rel, fork: Fork::Vm, blocks });
            }
            if flags & SMGR_TRUNCATE_HEAP != 0 {
                each(Touched::Truncated { rel, fork: Fork::Main, blocks: blkno });
            }
        }
        _ => {}
    }
    Some(())
}

fn zero_page(record: &Record<'_>, kind: Slru, major: Major, each: &mut impl FnMut(Touched)) -> Option<()> {
    if record.header.rmgr_info() == SLRU_ZEROPAGE {
        let pageno = rmgr::slru_pageno(&mut Reader(record.main_data), major)?;
        each(zeros_if_missing(Target::Slru { kind, pageno }, true));
    }
    Some(())
}

fn dbase(record: &Record<'_>, each: &mut impl FnMut(Touched)) -> Option<()> {
    let mut main = Reader(record.main_data);
    match record.header.rmgr_info() {
        DBASE_CREATE_FILE_COPY => {
            let (db, spc, src_db, src_spc) = (main.u32()?, main.u32()?, main.u32()?, main.u32()?);
            each(Touched::DatabaseCopied { src_spc, src_db, spc, db });
        }
        DBASE_DROP => {
            let (db, spaces) = (main.u32()?, main.u32()?);
            for _ in 0..spaces {
                each(Touched::DatabaseDropped { spc: main.u32()?, db });
            }
        }
        _ => {}
    }
    Some(())
}
