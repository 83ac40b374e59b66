//! One record: decoding it, and everything that is said of it without a page.

use walcore::describe::{Scene, Zone, json, record_name, waldump};
use walcore::lsn::maxalign;
use walcore::redo::{commit_ts_touches, touches};
use walcore::version::Major;
use walcore::wal::event::Counts;
use walcore::wal::{Event, RawRecord, Record, RecordHeader};
use walcore::{Lsn, describe};

use crate::{START, major_of};

/// Bytes: the major, then the record. Its length field is made true, as nothing else would get past it.
pub fn record(input: &[u8]) {
    let Some((major, record)) = input.split_first() else { return };
    let mut bytes = record.to_vec();
    let Some(length) = bytes.first_chunk_mut() else { return };
    *length = (record.len() as u32).to_le_bytes();
    let Ok(header) = RecordHeader::decode(START, &bytes) else { return };
    let end = Lsn(START.0 + maxalign(bytes.len() as u64));
    let major = Some(major_of(*major));
    explain(&RawRecord { start: START, end, header, bytes: &bytes, major });
}

/// Says all there is to say of a record.
///
/// # Panics
/// If one of the answers contradicts another.
pub fn explain(raw: &RawRecord<'_>) {
    let counted = Counts::default().add(raw);
    let totalled = describe::Stats::default().add(raw);
    let Ok(record) = raw.decode() else { return };
    assert!(counted.is_ok() && totalled.is_ok(), "a record that decodes can be counted");
    let major = raw.major.unwrap_or(Major::V18);
    let zone = Zone::default();
    let scene = Scene { major, zone: &zone };
    let mut text = Vec::new();
    waldump::write_record(&mut text, &record, &scene, false);
    text.clear();
    waldump::write_record(&mut text, &record, &scene, true);
    text.clear();
    json::write_line(&mut text, &record, &scene);
    assert!(
        std::str::from_utf8(&text).is_ok_and(|line| line.lines().count() == 1),
        "JSON is one line of UTF-8"
    );
    let _ = record_name(major, record.header.rmid, record.header.info);
    let _ = Event::decode(&record, Some(major));
    effects(&record, major);
    for block in &record.blocks {
        if let Some(image) = &block.image {
            let _ = image.restore(record.start, block.id);
        }
    }
}

/// A record touches no more than its length accounts for.
fn effects(record: &Record<'_>, major: Major) {
    let mut count = 0usize;
    let _ = touches(record, major, &mut |_| count += 1);
    let _ = commit_ts_touches(record, major, &mut |_| count += 1);
    let most = 64 + record.header.tot_len as usize;
    assert!(count <= most, "touches={count} tot_len={}", record.header.tot_len);
}
