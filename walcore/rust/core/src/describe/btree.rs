//! Btree, as 16 and later word it.
//!
//! Source: `src/backend/access/rmgrdesc/nbtdesc.c`.

use super::text::{FullXid, Tf, offsets, put};
use crate::reader::Reader;
use crate::version::Major;
use crate::wal::{Record, RelTag};

pub(super) fn btree(out: &mut Vec<u8>, record: &Record<'_>, major: Major) -> Option<()> {
    let mut r = Reader(record.main_data);
    let data = record.block(0).map_or(&[][..], |block| block.data);
    match record.header.rmgr_info() {
        0x00 | 0x10 | 0x20 | 0x50 => put!(out; "off: ", r.u16()?),
        0x30 | 0x40 => {
            put!(out; "level: ", r.u32()?, ", firstrightoff: ", r.u16()?);
            put!(out; ", newitemoff: ", r.u16()?, ", postingoff: ", r.u16()?);
        }
        0x60 => put!(out; "nintervals: ", r.u16()?),
        0xC0 => {
            let (deleted, updated) = (r.u16()?, r.u16()?);
            put!(out; "ndeleted: ", deleted, ", nupdated: ", updated);
            deleted_and_updated(out, data, deleted, updated)?;
        }
        0x70 => {
            let (horizon, deleted, updated) = (r.u32()?, r.u16()?, r.u16()?);
            put!(out; "snapshotConflictHorizon: ", horizon, ", ndeleted: ", deleted, ", nupdated: ", updated);
            catalog_flag(out, &mut r, major)?;
            deleted_and_updated(out, data, deleted, updated)?;
        }
        0xB0 => {
            r.skip(4)?;
            let (leaf, left, right, top) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
            put!(out; "topparent: ", top, ", leaf: ", leaf, ", left: ", left, ", right: ", right);
        }
        0x80 | 0x90 => {
            put!(out; "left: ", r.u32()?, ", right: ", r.u32()?, ", level: ", r.u32()?);
            r.skip(4)?;
            put!(out; ", safexid: ", FullXid(r.u64()?), ", leafleft: ", r.u32()?, ", leafright: ", r.u32()?);
            put!(out; ", leaftopparent: ", r.u32()?);
        }
        0xA0 => {
            r.skip(4)?;
            put!(out; "level: ", r.u32()?);
        }
        0xD0 => {
            put!(out; "rel: ", RelTag { spc: r.u32()?, db: r.u32()?, rel: r.u32()? });
            r.skip(4)?;
            put!(out; ", snapshotConflictHorizon: ", FullXid(r.u64()?));
            catalog_flag(out, &mut r, major)?;
        }
        0xE0 => {
            let mut data = Reader(data);
            data.skip(20)?;
            put!(out; "last_cleanup_num_delpages: ", data.u32()?);
        }
        _ => {}
    }
    Some(())
}

/// Logged since 16, printed since 17.
fn catalog_flag(out: &mut Vec<u8>, r: &mut Reader<'_>, major: Major) -> Option<()> {
    let is_catalog = r.u8()? != 0;
    if major >= Major::V17 {
        put!(out; ", isCatalogRel: ", Tf(is_catalog));
    }
    Some(())
}

/// Offsets deleted, then for each one updated: how many of its TIDs are deleted, and which.
fn deleted_and_updated(out: &mut Vec<u8>, data: &[u8], deleted: u16, updated: u16) -> Option<()> {
    if data.is_empty() {
        return Some(());
    }
    let mut r = Reader(data);
    put!(out; ", deleted:");
    offsets(out, r.bytes(usize::from(deleted) * 2)?);
    put!(out; ", updated: [");
    let mut updated_offsets = Reader(r.bytes(usize::from(updated) * 2)?);
    for i in 0..updated {
        let (offset, count) = (updated_offsets.u16()?, r.u16()?);
        put!(out; if i > 0 { ", " } else { "" }, "{ off: ", offset, ", nptids: ", count, ", ptids:");
        offsets(out, r.bytes(usize::from(count) * 2)?);
        put!(out; " }");
    }
    put!(out; "]");
    Some(())
}
