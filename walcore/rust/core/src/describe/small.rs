//! Resource managers with a record or two: storage, status pages, databases, tablespaces, multixacts, and more.
//!
//! Source: the file of each in `src/backend/access/rmgrdesc`.

use super::path::RelPath;
use super::text::{CText, Hex, put};
use crate::Lsn;
use crate::reader::Reader;
use crate::rmgr::{rel_tag, slru_pageno};
use crate::version::Major;
use crate::wal::{Fork, Record};

pub(super) fn storage(out: &mut Vec<u8>, record: &Record<'_>, major: Major) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x10 => {
            let (rel, fork) = (rel_tag(&mut r)?, Fork::from_number(r.u32()? as u8)?);
            put!(out; RelPath(major, rel, fork));
        }
        0x20 => {
            let (blocks, rel, flags) = (r.u32()?, rel_tag(&mut r)?, r.i32()?);
            put!(out; RelPath(major, rel, Fork::Main), " to ", blocks, " blocks flags ", flags);
        }
        _ => {}
    }
    Some(())
}

pub(super) fn clog(out: &mut Vec<u8>, record: &Record<'_>, major: Major) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x00 => put!(out; "page ", slru_pageno(&mut r, major)?),
        0x10 => put!(out; "page ", slru_pageno(&mut r, major)?, "; oldestXact ", r.u32()?),
        _ => {}
    }
    Some(())
}

pub(super) fn commit_ts(out: &mut Vec<u8>, record: &Record<'_>, major: Major) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x00 => put!(out; slru_pageno(&mut r, major)?),
        0x10 => put!(out; "pageno ", slru_pageno(&mut r, major)?, ", oldestXid ", r.u32()?),
        _ => {}
    }
    Some(())
}

pub(super) fn multixact(out: &mut Vec<u8>, record: &Record<'_>, major: Major) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x00 | 0x10 => put!(out; slru_pageno(&mut r, major)?),
        0x20 => {
            let (multi, offset, count) = (r.u32()?, r.u32()?, r.i32()?);
            put!(out; multi, " offset ", offset, " nmembers ", count, ": ");
            for _ in 0..count {
                put!(out; r.u32()?, " ", member_status(r.u32()?));
            }
        }
        0x30 => {
            r.skip(4)?;
            put!(out; "offsets [", r.u32()?, ", ", r.u32()?, "), members [", r.u32()?, ", ", r.u32()?, ")");
        }
        _ => {}
    }
    Some(())
}

fn member_status(status: u32) -> &'static str {
    match status {
        0 => "(keysh) ",
        1 => "(sh) ",
        2 => "(fornokeyupd) ",
        3 => "(forupd) ",
        4 => "(nokeyupd) ",
        5 => "(upd) ",
        _ => "(unk) ",
    }
}

pub(super) fn database(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x00 => {
            let (db, spc, from_db, from_spc) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
            put!(out; "copy dir ", from_spc, "/", from_db, " to ", spc, "/", db);
        }
        0x10 => {
            let (db, spc) = (r.u32()?, r.u32()?);
            put!(out; "create dir ", spc, "/", db);
        }
        0x20 => {
            let (db, count) = (r.u32()?, r.i32()?);
            put!(out; "dir");
            for _ in 0..count {
                put!(out; " ", r.u32()?, "/", db);
            }
        }
        _ => {}
    }
    Some(())
}

pub(super) fn tablespace(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x00 => put!(out; r.u32()?, " \"", CText(r.0), "\""),
        0x10 => put!(out; r.u32()?),
        _ => {}
    }
    Some(())
}

pub(super) fn relation_map(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    if record.header.rmgr_info() == 0 {
        put!(out; "database ", r.u32()?, " tablespace ", r.u32()?, " size ", r.i32()?);
    }
    Some(())
}

pub(super) fn sequence(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    if record.header.rmgr_info() == 0 {
        put!(out; "rel ", rel_tag(&mut Reader(record.main_data))?);
    }
    Some(())
}

pub(super) fn replication_origin(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x00 => {
            let (lsn, node, force) = (Lsn(r.u64()?), r.u16()?, r.u8()?);
            put!(out; "set ", node, "; lsn ", lsn, "; force: ", force);
        }
        0x10 => put!(out; "drop ", r.u16()?),
        _ => {}
    }
    Some(())
}

/// Regions in the main data; the server logs them with the blocks, so there are none here.
pub(super) fn generic(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    let mut r = Reader(record.main_data);
    while r.left() > 0 {
        let (offset, length) = (r.u16()?, r.u16()?);
        r.skip(usize::from(length))?;
        put!(out; "offset ", offset, ", length ", length, if r.left() > 0 { "; " } else { "" });
    }
    Some(())
}

pub(super) fn logical_message(out: &mut Vec<u8>, record: &Record<'_>) -> Option<()> {
    if record.header.rmgr_info() != 0 {
        return Some(());
    }
    let mut r = Reader(record.main_data);
    r.skip(4)?;
    let transactional = r.u32()? & 0xFF != 0;
    let (prefix_len, len) = (r.u64()?, r.u64()?);
    let prefix = r.bytes(usize::try_from(prefix_len).ok()?)?;
    let message = r.bytes(usize::try_from(len).ok()?)?;
    put!(out; if transactional { "transactional" } else { "non-transactional" });
    put!(out; ", prefix \"", CText(prefix), "\"; payload (", len, " bytes): ");
    for (i, byte) in message.iter().enumerate() {
        put!(out; if i > 0 { " " } else { "" }, Hex((*byte).into(), 2));
    }
    Some(())
}
