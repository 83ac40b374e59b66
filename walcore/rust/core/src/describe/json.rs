//! A record as a line of JSON.

use super::brief::{fpi_len, rmgr_name};
use super::text::put;
use super::{Scene, record_name};
use crate::wal::{BlockRef, Record};

/// Appends one JSON object and a newline.
///
/// LSNs are strings as Postgres prints them; `length` leaves full-page images out, `total_length` does not.
pub fn write_line(out: &mut Vec<u8>, record: &Record<'_>, scene: &Scene<'_>) {
    let header = &record.header;
    put!(out; r#"{"lsn":""#, record.start, r#"","end":""#, record.end, r#"","prev":""#, header.prev);
    put!(out; r#"","rmgr":""#);
    rmgr_name(out, header.rmid);
    put!(out; r#"","record":""#);
    match record_name(scene.major, header.rmid, header.info) {
        Some(name) => put!(out; name),
        None => put!(out; format!("UNKNOWN ({:x})", header.rmgr_info())),
    }
    put!(out; r#"","xid":"#, header.xid);
    put!(out; r#","length":"#, header.tot_len.saturating_sub(fpi_len(record)));
    put!(out; r#","total_length":"#, header.tot_len);
    if let Some(origin) = record.origin {
        put!(out; r#","origin":"#, origin);
    }
    if let Some(xid) = record.toplevel_xid {
        put!(out; r#","toplevel_xid":"#, xid);
    }
    put!(out; r#","description":""#);
    let described_at = out.len();
    scene.describe(out, record);
    escape_from(out, described_at);
    put!(out; r#"","blocks":["#);
    for (i, reference) in record.blocks.iter().enumerate() {
        put!(out; if i > 0 { "," } else { "" });
        block(out, reference);
    }
    put!(out; "]}\n");
}

/// Makes what was written from `at` on the inside of a JSON string; bytes that are not UTF-8 become `\u{FFFD}`.
fn escape_from(out: &mut Vec<u8>, at: usize) {
    let plain = |b: &u8| matches!(b, 0x20..=0x7E) && !matches!(b, b'"' | b'\\');
    if out.get(at..).is_none_or(|text| text.iter().all(plain)) {
        return;
    }
    let text = String::from_utf8_lossy(&out.split_off(at)).into_owned();
    for c in text.chars() {
        match c {
            '"' => put!(out; "\\\""),
            '\\' => put!(out; "\\\\"),
            '\0'..='\u{1F}' => put!(out; format!("\\u{:04x}", u32::from(c))),
            _ => put!(out; String::from(c)),
        }
    }
}

fn truth(is: bool) -> &'static str {
    if is { "true" } else { "false" }
}

fn block(out: &mut Vec<u8>, reference: &BlockRef<'_>) {
    let BlockRef { id, tag, will_init, data, image } = reference;
    put!(out; r#"{"id":"#, *id, r#","relation":""#, tag.rel, r#"","fork":""#, tag.fork.name());
    put!(out; r#"","block":"#, tag.blkno, r#","will_init":"#, truth(*will_init));
    put!(out; r#","data_length":"#, data.len() as u64);
    if let Some(image) = image {
        put!(out; r#","image":{"length":"#, image.bytes.len() as u64);
        put!(out; r#","hole_offset":"#, image.hole_offset, r#","hole_length":"#, image.hole_length);
        put!(out; r#","compression":""#, image.compression().name());
        put!(out; r#"","apply":"#, truth(image.apply()), "}");
    }
    put!(out; "}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let mut out = b"keep \"".to_vec();
        out.extend_from_slice(b"a\"b\\c\n\xFF");
        escape_from(&mut out, 6);
        assert_eq!(String::from_utf8(out).unwrap(), "keep \"a\\\"b\\\\c\\u000a\u{FFFD}");
    }
}
