//! Transaction.
//!
//! Source: `src/backend/access/rmgrdesc/xactdesc.c`.

use super::Scene;
use super::path::RelPath;
use super::standby::{invalidations, xids};
use super::text::{CText, put};
use crate::Lsn;
use crate::lsn::maxalign;
use crate::reader::Reader;
use crate::rmgr::rel_tag;
use crate::rmgr::xact::{Outcome, XactEnd};
use crate::wal::{Fork, Record, RelTag};

/// `XACT_COMPLETION_*` of `src/include/access/xact.h`.
mod completion {
    pub const APPLY_FEEDBACK: u32 = 1 << 29;
    pub const UPDATE_RELCACHE_FILE: u32 = 1 << 30;
    pub const FORCE_SYNC_COMMIT: u32 = 1 << 31;
}

pub(super) fn xact(out: &mut Vec<u8>, record: &Record<'_>, scene: &Scene<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.info & 0x70 {
        0x10 => prepare(out, record, scene)?,
        0x50 => {
            put!(out; "xtop ", r.u32()?, ": subxacts:");
            let count = r.i32()?;
            xids(out, &mut r, count)?;
        }
        0x60 => {
            let count = r.i32()?;
            invalidations(out, scene.major, &mut r, count, None)?;
        }
        _ => {
            if let Some(end) = XactEnd::decode(record, scene.major)? {
                ending(out, record, &end, scene)?;
            }
        }
    }
    Some(())
}

fn ending(out: &mut Vec<u8>, record: &Record<'_>, end: &XactEnd<'_>, scene: &Scene<'_>) -> Option<()> {
    if let Some(xid) = end.prepared_xid.filter(|xid| *xid != 0) {
        put!(out; xid, ": ");
    }
    scene.zone.put_timestamp(out, end.time_us);
    relations(out, "rels", end.dropped_rels(), scene);
    subxacts(out, end.subxids());
    match end.outcome {
        Outcome::Committed => {
            dropped_stats(out, "", end.stats, scene)?;
            let init_file = end.xinfo & completion::UPDATE_RELCACHE_FILE != 0;
            let count = i32::try_from(end.messages.len() / 16).ok()?;
            let database = init_file.then_some(end.database);
            invalidations(out, scene.major, &mut Reader(end.messages), count, database)?;
            if end.xinfo & completion::APPLY_FEEDBACK != 0 {
                put!(out; "; apply_feedback");
            }
            if end.xinfo & completion::FORCE_SYNC_COMMIT != 0 {
                put!(out; "; sync");
            }
            origin(out, record, end.origin, scene);
        }
        Outcome::Aborted => {
            origin(out, record, end.origin, scene);
            dropped_stats(out, "", end.stats, scene)?;
        }
    }
    Some(())
}

fn origin(out: &mut Vec<u8>, record: &Record<'_>, origin: Option<(u64, i64)>, scene: &Scene<'_>) {
    if let Some((lsn, time)) = origin {
        put!(out; "; origin: node ", record.origin.unwrap_or(0), ", lsn ", Lsn(lsn), ", at ");
        scene.zone.put_timestamp(out, time);
    }
}

fn relations(out: &mut Vec<u8>, label: &str, rels: impl Iterator<Item = RelTag>, scene: &Scene<'_>) {
    for (i, rel) in rels.enumerate() {
        if i == 0 {
            put!(out; "; ", label, ":");
        }
        put!(out; " ", RelPath(scene.major, rel, Fork::Main));
    }
}

fn subxacts(out: &mut Vec<u8>, xids: impl Iterator<Item = u32>) {
    for (i, xid) in xids.enumerate() {
        put!(out; if i == 0 { "; subxacts: " } else { " " }, xid);
    }
}

fn dropped_stats(out: &mut Vec<u8>, label: &str, items: &[u8], scene: &Scene<'_>) -> Option<()> {
    if items.is_empty() {
        return Some(());
    }
    put!(out; "; ", label, "dropped stats:");
    for item in items.chunks_exact(scene.major.dropped_stats_len()) {
        let mut r = Reader(item);
        put!(out; " ", r.i32()?, "/", r.u32()?, "/");
        match r.left() {
            4 => put!(out; r.u32()?),
            _ => put!(out; r.u64()?),
        }
    }
    Some(())
}

/// `xl_xact_prepare` and its arrays, each aligned to 8.
fn prepare(out: &mut Vec<u8>, record: &Record<'_>, scene: &Scene<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    r.skip(12)?;
    let (database, time) = (r.u32()?, r.i64()?);
    r.skip(4)?;
    let mut counts = [0usize; 6];
    for count in &mut counts {
        *count = usize::try_from(r.i32()?).ok()?;
    }
    let [nsubxacts, ncommitrels, nabortrels, ncommitstats, nabortstats, nmsgs] = counts;
    let init_file = r.u16()? & 0xFF != 0;
    let gid_len = usize::from(r.u16()?);
    let from = (r.u64()?, r.i64()?);
    let mut array = |count: usize, len: usize| {
        let size = count.checked_mul(len)?;
        let bytes = r.bytes(maxalign(size as u64) as usize)?;
        bytes.get(..size)
    };
    let stats_len = scene.major.dropped_stats_len();
    let gid = array(gid_len, 1)?;
    let xids = array(nsubxacts, 4)?;
    let (commit_rels, abort_rels) = (array(ncommitrels, 12)?, array(nabortrels, 12)?);
    let (commit_stats, abort_stats) = (array(ncommitstats, stats_len)?, array(nabortstats, stats_len)?);
    let messages = array(nmsgs, 16)?;

    put!(out; "gid ", CText(gid), ": ");
    scene.zone.put_timestamp(out, time);
    let rels = |bytes: &'_ [u8]| {
        bytes.chunks_exact(12).filter_map(|rel| rel_tag(&mut Reader(rel))).collect::<Vec<_>>()
    };
    relations(out, "rels(commit)", rels(commit_rels).into_iter(), scene);
    relations(out, "rels(abort)", rels(abort_rels).into_iter(), scene);
    dropped_stats(out, "commit ", commit_stats, scene)?;
    dropped_stats(out, "abort ", abort_stats, scene)?;
    subxacts(out, xids.chunks_exact(4).filter_map(|xid| Reader(xid).u32()));
    let count = i32::try_from(nmsgs).ok()?;
    let init_file = init_file.then_some((database, 0));
    invalidations(out, scene.major, &mut Reader(messages), count, init_file)?;
    origin(out, record, record.origin.map(|_| from), scene);
    Some(())
}
