//! Standby, and the invalidation messages that other records carry too.
//!
//! Source: `src/backend/access/rmgrdesc/standbydesc.c`.

use super::text::put;
use crate::reader::Reader;
use crate::version::Major;
use crate::wal::Record;

pub(super) fn standby(out: &mut Vec<u8>, record: &Record<'_>, major: Major) -> Option<()> {
    let mut r = Reader(record.main_data);
    match record.header.rmgr_info() {
        0x00 => {
            for _ in 0..r.i32()? {
                put!(out; "xid ", r.u32()?, " db ", r.u32()?, " rel ", r.u32()?, " ");
            }
        }
        0x10 => running_xacts(out, r, major)?,
        0x20 => {
            let (db, spc, init_file) = (r.u32()?, r.u32()?, r.u32()? & 0xFF != 0);
            let count = r.i32()?;
            invalidations(out, major, &mut r, count, init_file.then_some((db, spc)))?;
        }
        _ => {}
    }
    Some(())
}

fn running_xacts(out: &mut Vec<u8>, mut r: Reader<'_>, major: Major) -> Option<()> {
    let (xacts, subxacts, overflowed) = (r.i32()?, r.i32()?, r.u32()? & 0xFF != 0);
    let (next, oldest, latest) = (r.u32()?, r.u32()?, r.u32()?);
    put!(out; "nextXid ", next, " latestCompletedXid ", latest, " oldestRunningXid ", oldest);
    if xacts > 0 {
        put!(out; "; ", xacts, " xacts:");
        xids(out, &mut r, xacts)?;
    }
    if overflowed {
        put!(out; if major == Major::V15 { "; subxid ovf" } else { "; subxid overflowed" });
    }
    if subxacts > 0 && major > Major::V15 {
        put!(out; "; ", subxacts, " subxacts:");
        xids(out, &mut r, subxacts)?;
    }
    Some(())
}

/// Appends so many transactions, each after a blank.
pub(super) fn xids(out: &mut Vec<u8>, r: &mut Reader<'_>, count: i32) -> Option<()> {
    for _ in 0..count {
        put!(out; " ", r.u32()?);
    }
    Some(())
}

/// Appends so many messages of 16 bytes; before them, database and tablespace whose relation cache file is invalid.
pub(super) fn invalidations(
    out: &mut Vec<u8>,
    major: Major,
    r: &mut Reader<'_>,
    count: i32,
    init_file: Option<(u32, u32)>,
) -> Option<()> {
    if count <= 0 {
        return Some(());
    }
    if let Some((db, spc)) = init_file {
        put!(out; "; relcache init file inval dbid ", db, " tsid ", spc);
    }
    put!(out; "; inval msgs:");
    for _ in 0..count {
        let mut message = Reader(r.bytes(16)?);
        let id = i8::from_le_bytes(message.array()?);
        message.skip(3)?;
        let (db, rel) = (message.u32()?, message.u32()?);
        match id {
            0.. => put!(out; " catcache ", id),
            -1 => put!(out; " catalog ", rel),
            -2 => put!(out; " relcache ", rel),
            -3 => put!(out; " smgr"),
            -4 => put!(out; " relmap db ", db),
            -5 => put!(out; " snapshot ", rel),
            -6 if major >= Major::V18 => put!(out; " relsync ", rel),
            _ => put!(out; " unrecognized id ", id),
        }
    }
    Some(())
}
