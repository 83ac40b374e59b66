//! The quick way over sound pages gives what the stream gives, and gives up where the stream has something to say.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod writer;

use walcore::Lsn;
use walcore::version::Major;
use walcore::wal::walk::Walk;
use walcore::wal::{RawRecord, WalStream};
use writer::{Draw, OVERWRITE, PAGE, SEGMENT, Writer, Written};

const START: u64 = 16 * SEGMENT;
const PAGES: u64 = 12;

fn written(raw: &RawRecord<'_>) -> Written {
    Written { start: raw.start, end: raw.end, bytes: raw.bytes.to_vec() }
}

/// What the walk gives from a page on, and whether it came to the end without giving up.
fn walked(wal: &[u8], from: u64, stop: u64) -> (Vec<Written>, bool) {
    let mut records = Vec::new();
    let mut walk = Walk::new(Lsn(from), SEGMENT);
    let mut at = from;
    while at < stop || walk.is_gathering() {
        let offset = (at - START) as usize;
        let Some(page) = wal.get(offset..offset + PAGE as usize) else { return (records, false) };
        let mut each = |raw: &RawRecord<'_>| {
            records.push(written(raw));
            Some(())
        };
        if walk.page(Lsn(at), page, Lsn(stop), &mut each).is_none() {
            return (records, false);
        }
        at += PAGE;
    }
    (records, true)
}

/// What the stream gives, and whether it had nothing to say against it.
fn streamed(wal: &[u8]) -> (Vec<Written>, bool) {
    let mut stream = WalStream::new(Lsn(START), SEGMENT, None, None).unwrap();
    let mut records = Vec::new();
    let fed = stream.feed(wal, &mut |raw| {
        records.push(written(raw));
        Ok(())
    });
    (records, fed.is_ok())
}

/// Short and long records on whole pages.
fn sound(pages: u64, seed: u64) -> Writer {
    let mut w = Writer::new(START, 0);
    let mut draw = Draw(seed);
    while w.pos() < START + (pages - 4) * PAGE {
        let most = if draw.below(15) == 0 { 20_000 } else { 300 };
        w.message(26 + draw.below(most));
    }
    while w.pos() < START + pages * PAGE {
        w.fill_page(0);
    }
    w
}

#[test]
fn sound_wal_is_walked_to_its_end_from_any_page() {
    for seed in 0..20 {
        let w = sound(40, seed);
        let end = w.pos();
        assert_eq!(walked(&w.wal, START, end), (w.records.clone(), true));
        for page in 1..30 {
            let (from, stop) = (START + page * PAGE, START + (page + 7) * PAGE);
            let ours = w.records.iter().filter(|r| (from..stop).contains(&r.start.0)).cloned().collect();
            assert_eq!(walked(&w.wal, from, stop), (ours, true));
        }
    }
}

#[test]
fn records_are_followed_into_the_next_segment() {
    let w = sound(2 * SEGMENT / PAGE + 8, 5);
    assert_eq!(walked(&w.wal, START, w.pos()), (w.records.clone(), true));
}

#[test]
fn damage_is_given_up_and_nothing_else_is_given() {
    let mut draw = Draw(3);
    for round in 0..3000 {
        let mut w = sound(PAGES, round % 10);
        // Headers of pages and of records are few among the bytes: they get half of the flips.
        let byte = match round % 4 {
            0 => draw.below(PAGES) * PAGE + draw.below(24),
            1 => w.records[draw.below(w.records.len() as u64) as usize].start.0 - START + draw.below(24),
            _ => draw.below(w.wal.len() as u64),
        };
        w.wal[byte as usize] ^= 1 << draw.below(8);
        let (ours, to_the_end) = walked(&w.wal, START, w.pos());
        let (theirs, sound) = streamed(&w.wal);
        if to_the_end {
            assert_eq!((ours, true), (theirs, sound), "byte {byte}");
        } else {
            assert!(w.records.starts_with(&ours), "byte {byte}");
        }
    }
}

#[test]
fn what_only_a_stream_can_tell_is_given_up() {
    let mut switched = sound(PAGES, 1);
    switched.switch();
    let end = switched.pos();
    assert!(!walked(&switched.wal, START, end).1);
    // Its end is that of the segment, also where its last byte is that of the last page looked at.
    let mut switched = sound(PAGES, 1);
    switched.fill_page(24);
    let end = switched.pos() + 24;
    switched.switch();
    assert!(!walked(&switched.wal, START, end).1);

    let mut torn = Writer::new(START, 0);
    torn.fill_page(200);
    let lost = writer::record_bytes(21, 0, 9, torn.prev, &writer::main_data(5000, |_| 1));
    let overwritten = torn.torn(&lost, 200);
    torn.page_header(OVERWRITE, 0);
    torn.overwrite_contrecord(overwritten);
    torn.fill_page(0);
    assert_eq!(streamed(&torn.wal), (torn.records.clone(), true));
    assert!(!walked(&torn.wal, START, torn.pos()).1);

    let mut not_behind = sound(PAGES, 2);
    not_behind.prev -= 8;
    not_behind.fill_page(0);
    assert!(!walked(&not_behind.wal, START, not_behind.pos()).1);
    let mut from_ahead = Writer::new(START, START);
    from_ahead.fill_page(0);
    assert!(!walked(&from_ahead.wal, START, from_ahead.pos()).1);

    for (tli, major) in [(2, Major::V18), (1, Major::V15)] {
        let mut other = sound(PAGES, 2);
        (other.tli, other.major) = (tli, major);
        other.fill_page(0);
        assert!(!walked(&other.wal, START, other.pos()).1);
    }
}
