//! A record as a line of JSON.

use super::record_name;
use super::text::{decimal, lsn};
use crate::rmgr;
use crate::version::Major;
use crate::wal::{BlockRef, Record, RelTag};

/// Appends one JSON object and a newline.
///
/// LSNs are strings as Postgres prints them; `length` leaves full-page images out, `total_length` does not.
pub fn write_line(out: &mut Vec<u8>, major: Major, record: &Record<'_>) {
    let header = &record.header;
    for (key, at) in
        [(r#"{"lsn":""#, record.start), (r#"","end":""#, record.end), (r#"","prev":""#, header.prev)]
    {
        out.extend_from_slice(key.as_bytes());
        lsn(out, at);
    }
    out.extend_from_slice(br#"","rmgr":""#);
    rmgr_name(out, header.rmid);
    out.extend_from_slice(br#"","record":""#);
    match record_name(major, header.rmid, header.info) {
        Some(name) => out.extend_from_slice(name.as_bytes()),
        None => out.extend_from_slice(format!("UNKNOWN ({:x})", header.rmgr_info()).as_bytes()),
    }
    out.extend_from_slice(br#"","xid":"#);
    decimal(out, header.xid);
    field(out, r#","length":"#, header.tot_len.saturating_sub(fpi_len(record)));
    field(out, r#","total_length":"#, header.tot_len);
    if let Some(origin) = record.origin {
        field(out, r#","origin":"#, origin);
    }
    if let Some(xid) = record.toplevel_xid {
        field(out, r#","toplevel_xid":"#, xid);
    }
    out.extend_from_slice(br#","blocks":["#);
    for (i, reference) in record.blocks.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        block(out, reference);
    }
    out.extend_from_slice(b"]}\n");
}

/// Bytes of a record's full-page images, as stored.
pub fn fpi_len(record: &Record<'_>) -> u32 {
    record.blocks.iter().filter_map(|block| block.image.as_ref()).map(|image| image.bytes.len() as u32).sum()
}

/// Appends the name of a resource manager as `pg_waldump` prints it.
pub fn rmgr_name(out: &mut Vec<u8>, rmid: u8) {
    match rmgr::RMGRS.get(usize::from(rmid)) {
        Some((_, name)) => out.extend_from_slice(name.as_bytes()),
        None => out.extend_from_slice(rmgr::name(rmid).as_bytes()),
    }
}

/// Appends a relation as `tablespace/database/relfilenode`.
pub fn relation(out: &mut Vec<u8>, rel: RelTag) {
    decimal(out, rel.spc);
    field(out, "/", rel.db);
    field(out, "/", rel.rel);
}

fn field(out: &mut Vec<u8>, key: &str, n: impl Into<u64>) {
    out.extend_from_slice(key.as_bytes());
    decimal(out, n);
}

fn flag(out: &mut Vec<u8>, key: &str, is: bool) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(if is { b"true" } else { b"false" });
}

fn block(out: &mut Vec<u8>, reference: &BlockRef<'_>) {
    field(out, r#"{"id":"#, reference.id);
    out.extend_from_slice(br#","relation":""#);
    relation(out, reference.tag.rel);
    out.extend_from_slice(br#"","fork":""#);
    out.extend_from_slice(reference.tag.fork.name().as_bytes());
    field(out, r#"","block":"#, reference.tag.blkno);
    flag(out, r#","will_init":"#, reference.will_init);
    field(out, r#","data_length":"#, reference.data.len() as u64);
    if let Some(image) = &reference.image {
        field(out, r#","image":{"length":"#, image.bytes.len() as u64);
        field(out, r#","hole_offset":"#, image.hole_offset);
        field(out, r#","hole_length":"#, image.hole_length);
        out.extend_from_slice(br#","compression":""#);
        out.extend_from_slice(image.compression().name().as_bytes());
        flag(out, r#"","apply":"#, image.apply());
        out.push(b'}');
    }
    out.push(b'}');
}
