//! Hash, Gist, SPGist and BRIN.
//!
//! Source: `hashdesc.c`, `gistdesc.c`, `spgdesc.c` and `brindesc.c` in `src/backend/access/rmgrdesc`.

use super::text::{FullXid, General, Tf, put};
use crate::reader::Reader;
use crate::version::Major;
use crate::wal::{Record, RelTag};

/// What 15 and the later ones call the newest transaction whose tuples are removed.
fn horizon(major: Major) -> &'static str {
    if major == Major::V15 { "latestRemovedXid " } else { "snapshotConflictHorizon " }
}

/// Logged since 16, printed since 17.
fn catalog_flag(out: &mut Vec<u8>, key: &str, r: &mut Reader<'_>, major: Major) -> Option<()> {
    if major >= Major::V17 {
        put!(out; key, Tf(r.u8()? != 0));
    }
    Some(())
}

/// The texts whose flags are set.
fn marks(out: &mut Vec<u8>, marks: &[(u8, &str)]) {
    for (_, text) in marks.iter().filter(|(flag, _)| *flag != 0) {
        put!(out; *text);
    }
}

pub(super) fn hash(out: &mut Vec<u8>, record: &Record<'_>, major: Major) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x00 => {
            let tuples = f64::from_bits(r.u64()?);
            r.skip(4)?;
            put!(out; "num_tuples ", General(tuples), ", fillfactor ", r.u16()?);
        }
        0x10 => put!(out; "bmsize ", r.u16()?),
        0x20 => put!(out; "off ", r.u16()?),
        0x30 => put!(out; "bmsize ", r.u16()?, ", bmpage_found ", Tf(r.u8()? != 0)),
        0x40 => {
            let bucket = r.u32()?;
            r.skip(4)?;
            let flags = r.u8()?;
            put!(out; "new_bucket ", bucket, ", meta_page_masks_updated ", Tf(flags & 1 != 0));
            put!(out; ", issplitpoint_changed ", Tf(flags & 2 != 0));
        }
        0x60 => put!(out; "old_bucket_flag ", r.u16()?, ", new_bucket_flag ", r.u16()?),
        0x70 => put!(out; "ntups ", r.u16()?, ", is_primary ", Tf(r.u8()? != 0)),
        0x80 => {
            put!(out; "prevblkno ", r.u32()?, ", nextblkno ", r.u32()?);
            put!(out; ", ntups ", r.u16()?, ", is_primary ", Tf(r.u8()? != 0));
        }
        0x90 => put!(out; "clear_dead_marking ", Tf(r.u8()? != 0), ", is_primary ", Tf(r.u8()? != 0)),
        0xB0 => put!(out; "ntuples ", General(f64::from_bits(r.u64()?))),
        0xC0 => {
            let xid = r.u32()?;
            if major == Major::V15 {
                put!(out; "ntuples ", r.i32()?);
            } else {
                put!(out; "ntuples ", r.u16()?);
            }
            put!(out; ", ", horizon(major), xid);
            catalog_flag(out, ", isCatalogRel ", &mut r, major)?;
        }
        _ => {}
    }
    Some(())
}

pub(super) fn gist(out: &mut Vec<u8>, record: &Record<'_>, major: Major) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x10 => {
            put!(out; "delete: ", horizon(major), r.u32()?, ", nitems: ", r.u16()?);
            catalog_flag(out, ", isCatalogRel ", &mut r, major)?;
        }
        0x20 => {
            put!(out; "rel ", RelTag { spc: r.u32()?, db: r.u32()?, rel: r.u32()? });
            put!(out; "; blk ", r.u32()?, "; ", horizon(major), FullXid(r.u64()?));
            catalog_flag(out, ", isCatalogRel ", &mut r, major)?;
        }
        0x30 => {
            r.skip(18)?;
            put!(out; "page_split: splits to ", r.u16()?, " pages");
        }
        0x60 => put!(out; "deleteXid ", FullXid(r.u64()?), "; downlink ", r.u16()?),
        _ => {}
    }
    Some(())
}

pub(super) fn spgist(out: &mut Vec<u8>, record: &Record<'_>, major: Major) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x10 => {
            let (new_page, nulls) = (r.u8()?, r.u8()?);
            put!(out; "off: ", r.u16()?, ", headoff: ", r.u16()?, ", parentoff: ", r.u16()?, ", nodeI: ", r.u16()?);
            marks(out, &[(new_page, " (newpage)"), (nulls, " (nulls)")]);
        }
        0x20 => {
            let (moves, new_page, replace_dead, nulls) = (r.u16()?, r.u8()?, r.u8()?, r.u8()?);
            r.skip(1)?;
            put!(out; "nmoves: ", moves, ", parentoff: ", r.u16()?, ", nodeI: ", r.u16()?);
            marks(out, &[(new_page, " (newpage)"), (replace_dead, " (replacedead)"), (nulls, " (nulls)")]);
        }
        0x30 => {
            let (offset, new_offset, new_page, parent) =
                (r.u16()?, r.u16()?, r.u8()?, i8::from_le_bytes(r.array()?));
            put!(out; "off: ", offset, ", newoff: ", new_offset, ", parentBlk: ", parent);
            put!(out; ", parentoff: ", r.u16()?, ", nodeI: ", r.u16()?);
            marks(out, &[(new_page, " (newpage)")]);
        }
        0x40 => {
            put!(out; "prefixoff: ", r.u16()?, ", postfixoff: ", r.u16()?);
            marks(out, &[(r.u8()?, " (newpage)"), (r.u8()?, " (same)")]);
        }
        0x50 => picksplit(out, r)?,
        0x60 => {
            put!(out; "ndead: ", r.u16()?, ", nplaceholder: ", r.u16()?);
            put!(out; ", nmove: ", r.u16()?, ", nchain: ", r.u16()?);
        }
        0x70 => put!(out; "ndelete: ", r.u16()?),
        0x80 => {
            let key =
                if major == Major::V15 { ", newestredirectxid: " } else { ", snapshotConflictHorizon: " };
            put!(out; "ntoplaceholder: ", r.u16()?, ", firstplaceholder: ", r.u16()?, key, r.u32()?);
            catalog_flag(out, ", isCatalogRel: ", &mut r, major)?;
        }
        _ => {}
    }
    Some(())
}

fn picksplit(out: &mut Vec<u8>, mut r: Reader<'_>) -> Option<()> {
    let root_split = r.u8()?;
    r.skip(1)?;
    put!(out; "ndelete: ", r.u16()?, ", ninsert: ", r.u16()?);
    r.skip(2)?;
    put!(out; ", inneroff: ", r.u16()?);
    r.skip(1)?;
    let (nulls, inner_is_parent) = (r.u8()?, r.u8()?);
    r.skip(1)?;
    put!(out; ", parentoff: ", r.u16()?, ", nodeI: ", r.u16()?);
    marks(out, &[(inner_is_parent, " (innerIsParent)"), (nulls, " (nulls)"), (root_split, " (isRootSplit)")]);
    Some(())
}

pub(super) fn brin(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.info & 0x70 {
        0x00 => {
            let pages = r.u32()?;
            put!(out; "v", r.u16()?, " pagesPerRange ", pages);
        }
        0x10 => {
            put!(out; "heapBlk ", r.u32()?, " pagesPerRange ", r.u32()?, " offnum ", r.u16()?);
        }
        0x20 => {
            let old = r.u16()?;
            r.skip(2)?;
            put!(out; "heapBlk ", r.u32()?, " pagesPerRange ", r.u32()?);
            put!(out; " old offnum ", old, ", new offnum ", r.u16()?);
        }
        0x30 => put!(out; "offnum ", r.u16()?),
        0x40 => put!(out; "targetBlk ", r.u32()?),
        0x50 => {
            put!(out; "pagesPerRange ", r.u32()?, ", heapBlk ", r.u32()?, ", page offset ", r.u16()?);
        }
        _ => {}
    }
    Some(())
}
