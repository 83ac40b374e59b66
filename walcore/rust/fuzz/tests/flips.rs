//! Damage in WAL with every case of a boundary: the same records, or a stop before it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "../../core/tests/writer/mod.rs"]
mod writer;

use walcore::Lsn;
use walcore_fuzz::flips::{Outcome, Sample};
use writer::{Draw, OVERWRITE, PAGE, SEGMENT, SYSTEM_ID, Writer, record_bytes};

const START: u64 = 16 * SEGMENT;
const FLIPS: u32 = 20_000;

/// Records of many lengths, ends at and around page boundaries, a lost record, switches.
fn rich() -> Writer {
    let mut w = Writer::new(START, START - 100);
    let mut draw = Draw(42);
    for round in 0..12 {
        for short in [0, 8, 16, 24, 32, 3, 7] {
            w.fill_page(short);
            w.message(26 + draw.below(60));
            w.message(2 * PAGE + draw.below(9));
        }
        for _ in 0..100 {
            let most = if draw.below(10) == 0 { 20_000 } else { 300 };
            let len = 26 + draw.below(most);
            w.message(len);
        }
        if round % 4 == 1 {
            let room = w.room() as usize;
            let lost = record_bytes(21, 0, 9, w.prev, &vec![1; 3 * PAGE as usize]);
            let start = w.torn(&lost, room);
            w.page_header(OVERWRITE, 0);
            w.overwrite_contrecord(start);
        }
        if round % 4 == 2 {
            w.tli += 1;
            w.message(60);
        }
        if round % 6 == 5 {
            w.switch();
        }
    }
    w
}

#[test]
fn drawn_flips_give_the_same_records_or_a_stop_before_them() {
    let w = rich();
    let whole = Sample::new(Lsn(START), SEGMENT, Some(SYSTEM_ID), &w.wal).unwrap();
    // From the middle of a record on, too.
    let page = 5 * PAGE as usize;
    let later = Sample::new(Lsn(START + page as u64), SEGMENT, Some(SYSTEM_ID), &w.wal[page..]).unwrap();
    let mut draw = Draw(0x5EED_F11B);
    let mut stopped = 0;
    for n in 0..FLIPS {
        let sample = if n % 2 == 0 { &whole } else { &later };
        // Every fourth in a page header: they are a few bytes among many.
        let bit = draw.below(sample.bits() as u64);
        let bit = if n % 4 < 2 { bit } else { bit / (PAGE * 8) * (PAGE * 8) + bit % (40 * 8) };
        stopped += u32::from(sample.flip(bit as usize).unwrap() == Outcome::Stopped);
    }
    assert!((FLIPS / 2..FLIPS).contains(&stopped), "stopped={stopped}");
}

#[test]
fn every_flip_of_the_first_page_header_of_a_stream_is_seen_or_harmless() {
    let w = rich();
    for page in (1..60).map(|n| n * PAGE as usize) {
        // Behind a switch there are no headers.
        let Ok(sample) =
            Sample::new(Lsn(START + page as u64), SEGMENT, None, &w.wal[page..page + 30 * PAGE as usize])
        else {
            continue;
        };
        for bit in 0..24 * 8 {
            sample.flip(bit).unwrap();
        }
    }
}

#[test]
fn wal_cut_off_anywhere_gives_the_records_before_the_cut() {
    let w = rich();
    let sample = Sample::new(Lsn(START), SEGMENT, Some(SYSTEM_ID), &w.wal).unwrap();
    let mut draw = Draw(0xC07);
    for _ in 0..FLIPS {
        sample.cut(draw.below(w.wal.len() as u64) as usize).unwrap();
    }
}
