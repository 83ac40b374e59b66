//! A record as `pg_waldump` of its major prints it, byte for byte.

use super::text::{Hex, Padded, put, write_digits};
use super::{Scene, brief, record_name};
use crate::Lsn;
use crate::page::BLCKSZ;
use crate::rmgr;
use crate::wal::image::Compression;
use crate::wal::{Fork, Record, RecordHeader};

/// Appends a record: one line, or with `block_details` one more for each block reference.
///
/// Source: `XLogDumpDisplayRecord` in `src/bin/pg_waldump/pg_waldump.c`.
pub fn write_record(out: &mut Vec<u8>, record: &Record<'_>, scene: &Scene<'_>, block_details: bool) {
    let header = &record.header;
    head(out, header, header.tot_len.saturating_sub(brief::fpi_len(record)));
    wide_lsn(out, record.start);
    put!(out; ", prev ");
    wide_lsn(out, header.prev);
    put!(out; ", desc: ");
    match record_name(scene.major, header.rmid, header.info) {
        Some(name) => put!(out; name, " "),
        None => put!(out; format!("UNKNOWN ({:x}) ", header.rmgr_info())),
    }
    scene.describe(out, record);
    if block_details {
        detailed_blocks(out, record);
    } else {
        short_blocks(out, record);
    }
}

/// `rmgr: %-11s len (rec/tot): %6u/%6u, tx: %10u, lsn: `
fn head(out: &mut Vec<u8>, header: &RecordHeader, rec_len: u32) {
    let mut head = *b"rmgr:             len (rec/tot):       /      , tx:           , lsn: ";
    let name = rmgr::RMGRS.get(usize::from(header.rmid)).map_or("", |(_, name)| name);
    if name.is_empty() || name.len() > 11 || header.tot_len > 999_999 {
        let name = rmgr::name(header.rmid);
        put!(out; format!("rmgr: {name:11} len (rec/tot): {rec_len:6}/{:6}", header.tot_len));
        return put!(out; ", tx: ", Padded(header.xid, 10), ", lsn: ");
    }
    // The common case, filled into blanks.
    let (left, right) = head.split_at_mut(17);
    for (blank, letter) in left.iter_mut().skip(6).zip(name.bytes()) {
        *blank = letter;
    }
    for (place, n) in [(16..22, rec_len), (23..29, header.tot_len), (35..45, header.xid)] {
        write_digits(n.into(), right.get_mut(place).unwrap_or_default());
    }
    out.extend_from_slice(&head);
}

/// `%X/%08X`.
fn wide_lsn(out: &mut Vec<u8>, at: Lsn) {
    put!(out; Hex((at.0 >> 32) as u32, 1), "/", Hex(at.0 as u32, 8));
}

/// Source: `XLogRecGetBlockRefInfo` in `src/backend/access/rmgrdesc/xlogdesc.c`.
fn short_blocks(out: &mut Vec<u8>, record: &Record<'_>) {
    for block in &record.blocks {
        put!(out; ", blkref #", block.id, ": rel ", block.tag.rel);
        if block.tag.fork != Fork::Main {
            put!(out; " fork ", block.tag.fork.name());
        }
        put!(out; " blk ", block.tag.blkno);
        match &block.image {
            Some(image) if image.apply() => put!(out; " FPW"),
            Some(_) => put!(out; " FPW for WAL verification"),
            None => {}
        }
    }
    put!(out; "\n");
}

fn detailed_blocks(out: &mut Vec<u8>, record: &Record<'_>) {
    put!(out; "\n");
    for block in &record.blocks {
        put!(out; "\tblkref #", block.id, ": rel ", block.tag.rel);
        put!(out; " fork ", block.tag.fork.name(), " blk ", block.tag.blkno);
        if let Some(image) = &block.image {
            put!(out; " (FPW", if image.apply() { "" } else { " for WAL verification" });
            put!(out; "); hole: offset: ", image.hole_offset, ", length: ", image.hole_length);
            if image.compression() != Compression::None {
                let stored = usize::from(image.hole_length) + image.bytes.len();
                put!(out; ", compression saved: ", BLCKSZ.wrapping_sub(stored) as u32, ", method: ", image.compression().name());
            }
        }
        put!(out; "\n");
    }
}
