//! A record as a line of JSON.

use std::io::Write as _;

use super::record_name;
use crate::rmgr;
use crate::version::Major;
use crate::wal::{BlockRef, Record};

/// Appends one JSON object and a newline.
///
/// LSNs are strings as Postgres prints them; `length` leaves full-page images out, `total_length` does not.
pub fn write_line(out: &mut Vec<u8>, major: Major, record: &Record<'_>) {
    // Writing to memory does not fail.
    let _ = line(out, major, record);
}

fn line(out: &mut Vec<u8>, major: Major, record: &Record<'_>) -> std::io::Result<()> {
    let header = &record.header;
    let images = record.blocks.iter().filter_map(|block| block.image.as_ref());
    let fpi_len: usize = images.map(|image| image.bytes.len()).sum();
    write!(out, r#"{{"lsn":"{}","end":"{}","prev":"{}","#, record.start, record.end, header.prev)?;
    write!(out, r#""rmgr":"{}","record":""#, rmgr::name(header.rmid))?;
    match record_name(major, header.rmid, header.info) {
        Some(name) => write!(out, "{name}")?,
        None => write!(out, "UNKNOWN ({:x})", header.rmgr_info())?,
    }
    let len = (header.tot_len as usize).saturating_sub(fpi_len);
    write!(out, r#"","xid":{},"length":{len},"total_length":{}"#, header.xid, header.tot_len)?;
    if let Some(origin) = record.origin {
        write!(out, r#","origin":{origin}"#)?;
    }
    if let Some(xid) = record.toplevel_xid {
        write!(out, r#","toplevel_xid":{xid}"#)?;
    }
    out.extend_from_slice(br#","blocks":["#);
    for (i, reference) in record.blocks.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        block(out, reference)?;
    }
    out.extend_from_slice(b"]}\n");
    Ok(())
}

fn block(out: &mut Vec<u8>, reference: &BlockRef<'_>) -> std::io::Result<()> {
    let BlockRef { id, tag, will_init, data, image } = reference;
    write!(
        out,
        r#"{{"id":{id},"relation":"{}","fork":"{}","block":{},"will_init":{will_init},"data_length":{}"#,
        tag.rel,
        tag.fork.name(),
        tag.blkno,
        data.len()
    )?;
    if let Some(image) = image {
        write!(
            out,
            r#","image":{{"length":{},"hole_offset":{},"hole_length":{},"compression":"{}","apply":{}}}"#,
            image.bytes.len(),
            image.hole_offset,
            image.hole_length,
            image.compression().name(),
            image.apply()
        )?;
    }
    out.push(b'}');
    Ok(())
}
