//! Records out of streams of WAL: boundaries, pieces, damage.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod writer;

use walcore::Lsn;
use walcore::version::Major;
use walcore::wal::{WalError, WalStream};
use writer::{CONTRECORD, Draw, OVERWRITE, PAGE, SEGMENT, SYSTEM_ID, Writer, Written, record_bytes};

const START: u64 = 16 * SEGMENT;

/// What a stream gave, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    records: Vec<Written>,
    error: Option<WalError>,
    record_end: Lsn,
    received: Lsn,
}

fn stream(start: u64, prev: Option<u64>) -> WalStream {
    WalStream::new(Lsn(start), SEGMENT, None, prev.map(Lsn)).unwrap()
}

fn feed_all<'p>(mut stream: WalStream, pieces: impl IntoIterator<Item = &'p [u8]>) -> Seen {
    let mut records = Vec::new();
    let mut error = None;
    for piece in pieces {
        let fed = stream.feed(piece, &mut |raw| {
            assert_eq!(raw.header.tot_len as usize, raw.bytes.len());
            records.push(Written { start: raw.start, end: raw.end, bytes: raw.bytes.to_vec() });
            Ok(())
        });
        assert!(stream.record_end() <= stream.received());
        assert!(stream.last_record().is_none_or(|last| last < stream.record_end()));
        if let Err(e) = fed {
            error = Some(e);
            break;
        }
    }
    Seen { records, error, record_end: stream.record_end(), received: stream.received() }
}

fn read(wal: &[u8], start: u64) -> Seen {
    feed_all(stream(start, None), [wal])
}

fn end_of(w: &Writer) -> Lsn {
    w.records.last().map_or(Lsn(w.first), |r| r.end)
}

fn assert_all(w: &Writer) {
    let seen = read(&w.wal, w.first);
    assert_eq!(seen.error, None);
    assert_eq!(seen.records, w.records);
    assert_eq!(seen.record_end, end_of(w));
    assert_eq!(seen.received, Lsn(w.pos()));
}

/// WAL with every boundary case, over several segments.
fn rich() -> Writer {
    let mut w = Writer::new(START, START - 100);
    let mut draw = Draw(42);
    for short in [0, 8, 16, 24, 32, 3, 7] {
        w.fill_page(short);
        w.message(26 + draw.below(60));
        w.message(3 * PAGE + draw.below(9));
    }
    for _ in 0..200 {
        let most = if draw.below(10) == 0 { 20_000 } else { 300 };
        let len = 26 + draw.below(most);
        w.message(len);
    }
    w.switch();
    w.message(50);
    w.fill_page(8);
    w.switch();
    w.message(2 * SEGMENT + 77);
    w.message(33);
    w
}

#[test]
fn records_are_the_same_in_pieces_of_any_size() {
    let w = rich();
    assert_all(&w);
    let whole = read(&w.wal, w.first);
    for size in [1, 3, 8, 24, 41, 8191, 8192, 8193, 100_000] {
        assert_eq!(feed_all(stream(w.first, None), w.wal.chunks(size)), whole, "pieces of {size}");
    }
    let mut draw = Draw(7);
    for _ in 0..20 {
        let mut pieces = Vec::new();
        let mut rest = w.wal.as_slice();
        while !rest.is_empty() {
            let most = if draw.below(2) == 0 { 30 } else { 20_000 };
            let (head, tail) = rest.split_at(rest.len().min(draw.below(most) as usize));
            pieces.push(head);
            rest = tail;
        }
        assert_eq!(feed_all(stream(w.first, None), pieces), whole);
    }
}

#[test]
fn a_stream_can_start_at_every_record_and_every_record_end() {
    let w = rich();
    for (i, record) in w.records.iter().enumerate() {
        let next = w.records.get(i + 1).map_or(&[][..], |_| &w.records[i + 1..]);
        let tail = |at: Lsn| &w.wal[(at.0 - w.first) as usize..];
        let from_start = feed_all(stream(record.start.0, None), [tail(record.start)]);
        assert_eq!((from_start.error, &from_start.records[..]), (None, &w.records[i..]));
        let from_end = feed_all(stream(record.end.0, Some(record.start.0)), [tail(record.end)]);
        assert_eq!((from_end.error, &from_end.records[..]), (None, next));
    }
}

#[test]
fn a_stream_can_start_at_every_page_and_skips_the_rest_of_a_record() {
    let w = rich();
    let mut switch_pages = 0;
    for page in (w.first..w.pos()).step_by(PAGE as usize) {
        let at = (page - w.first) as usize;
        let seen = read(&w.wal[at..], page);
        if w.wal[at..at + 2] == [0, 0] {
            // Behind a switch there are no headers: a stream cannot start there.
            assert!(matches!(seen.error, Some(WalError::BadField { field: "xlp_magic", .. })));
            switch_pages += 1;
            continue;
        }
        let expected: Vec<_> = w.records.iter().filter(|r| r.start.0 >= page).cloned().collect();
        assert_eq!((seen.error, seen.records), (None, expected), "page {page:X}");
    }
    assert!(switch_pages > 10);
}

#[test]
fn a_record_that_ends_with_its_page_ends_at_the_boundary() {
    let mut w = Writer::new(START, 8);
    let last = w.fill_page(0);
    let next = w.message(100);
    assert_eq!(last.end, Lsn(START + PAGE));
    assert_eq!(next.start, Lsn(START + PAGE + 24));
    assert_all(&w);

    // Only its padding reaches the boundary.
    let padded = w.fill_page(3);
    assert_eq!(padded.end.0 % PAGE, 0);
    w.message(100);
    assert_all(&w);

    // The same at the end of a segment, where the next header is long.
    let mut w = Writer::new(START + SEGMENT - PAGE, 8);
    let last = w.fill_page(0);
    let next = w.message(100);
    assert_eq!(last.end, Lsn(START + SEGMENT));
    assert_eq!(next.start, Lsn(START + SEGMENT + 40));
    assert_all(&w);
}

#[test]
fn a_record_ends_behind_the_header_of_its_last_page() {
    let mut w = Writer::new(START, 8);
    w.fill_page(16);
    let split = w.message(100);
    assert_eq!(split.start, Lsn(START + PAGE - 16));
    assert_eq!(split.end, Lsn(START + PAGE + 24 + 88));
    assert_all(&w);

    // Exactly one page of continuation: the end is the boundary behind it.
    let mut w = Writer::new(START, 8);
    w.fill_page(8);
    let split = w.message(8 + PAGE - 24);
    assert_eq!(split.end, Lsn(START + 2 * PAGE));
    w.message(30);
    assert_all(&w);
}

#[test]
fn a_record_is_given_only_with_its_padding() {
    let mut w = Writer::new(START, 8);
    let record = w.message(61);
    let mut s = stream(START, None);
    let body = 40 + 61;
    s.feed(&w.wal[..body], &mut |_| panic!("given without padding")).unwrap();
    assert_eq!((s.record_end(), s.received()), (Lsn(START), Lsn(START + 101)));
    let mut given = 0;
    s.feed(&w.wal[body..], &mut |raw| {
        given += 1;
        assert_eq!(raw.end, record.end);
        Ok(())
    })
    .unwrap();
    assert_eq!((given, s.record_end()), (1, record.end));
}

#[test]
fn a_switch_ends_with_its_segment_and_not_before_that_was_fed() {
    for short in [0, 8, 16, 24, 4000] {
        let mut w = Writer::new(START, 8);
        let before = w.fill_page(short);
        let switch = w.switch();
        assert_eq!(switch.end, Lsn(START + SEGMENT));
        let mut s = stream(START, None);
        let almost = w.wal.len() - 1;
        s.feed(&w.wal[..almost], &mut |_| Ok(())).unwrap();
        assert_eq!(s.record_end(), before.end, "header cut {short} bytes before the end of its page");
        s.feed(&w.wal[almost..], &mut |_| Ok(())).unwrap();
        assert_eq!((s.record_end(), s.last_record()), (switch.end, Some(switch.start)));
        w.message(60);
        assert_all(&w);
    }
}

#[test]
fn a_switch_at_the_very_end_of_a_segment_has_no_padding() {
    let mut w = Writer::new(START + SEGMENT - PAGE, 8);
    w.fill_page(24);
    let switch = w.switch();
    assert_eq!(switch.start, Lsn(START + SEGMENT - 24));
    assert_eq!(switch.end, Lsn(START + SEGMENT));
    w.message(60);
    assert_all(&w);
}

#[test]
fn a_stream_can_start_between_the_two_halves_of_a_switch() {
    for short in [8, 16] {
        let mut w = Writer::new(START + SEGMENT - PAGE, 8);
        w.fill_page(short);
        w.switch();
        let next = w.message(60);
        assert_eq!(next.start, Lsn(START + 2 * SEGMENT + 40));
        for size in [1, 3, w.wal.len()] {
            let from = feed_all(stream(START + SEGMENT, None), w.wal[PAGE as usize..].chunks(size));
            assert_eq!((from.error, &from.records[..]), (None, &[next.clone()][..]));
        }
        // Positions do not count what was not seen.
        let mut s = stream(START + SEGMENT, None);
        s.feed(&w.wal[PAGE as usize..(PAGE + SEGMENT) as usize], &mut |_| Ok(())).unwrap();
        assert_eq!((s.record_end(), s.last_record()), (Lsn(START + SEGMENT), None));
    }
}

#[test]
fn padding_of_a_switch_is_zeros() {
    let mut w = Writer::new(START, 8);
    w.switch();
    w.wal[5 * PAGE as usize + 3] = 1;
    let seen = read(&w.wal, START);
    let at = Lsn(START + 5 * PAGE + 3);
    assert_eq!(seen.error, Some(WalError::BadField { at, field: "padding of XLOG_SWITCH", value: 1 }));
    assert_eq!(seen.record_end, Lsn(START));
}

fn overwritten(lost: u64, torn_pages: u64) -> (Writer, u64) {
    let mut w = Writer::new(START, 8);
    w.message(500);
    w.open_page();
    let bytes = record_bytes(21, 0, 9, w.prev, &vec![1; 5 * PAGE as usize]);
    let cut = w.room() + (torn_pages - 1) * (PAGE - 24);
    let torn = w.torn(&bytes, cut as usize);
    w.page_header(OVERWRITE, 0);
    w.overwrite_contrecord(if lost == 0 { torn } else { lost });
    w.message(70);
    (w, torn)
}

#[test]
fn a_record_whose_rest_was_lost_is_dropped() {
    for pages in [1, 3] {
        let (w, torn) = overwritten(0, pages);
        assert_all(&w);
        assert!(w.records.iter().all(|r| r.start.0 != torn));
        // Starting in the middle of the lost record goes on behind it too.
        let at = START + PAGE;
        let seen = read(&w.wal[PAGE as usize..], at);
        assert_eq!((seen.error, &seen.records[..]), (None, &w.records[1..]));
    }
}

#[test]
fn the_record_behind_a_lost_one_must_name_it() {
    let (w, torn) = overwritten(START + 8, 1);
    let seen = read(&w.wal, START);
    let at = w.records[1].start;
    let expected = WalError::Mismatch { at, field: "overwritten_lsn", expected: torn, found: START + 8 };
    assert_eq!((seen.error, seen.records.len()), (Some(expected), 1));

    let mut w = Writer::new(START, 8);
    w.open_page();
    let bytes = record_bytes(21, 0, 9, w.prev, &vec![1; 5 * PAGE as usize]);
    let room = w.room() as usize;
    w.torn(&bytes, room);
    w.page_header(OVERWRITE, 0);
    w.message(70);
    assert!(matches!(read(&w.wal, START).error, Some(WalError::Mismatch { field: "overwritten_lsn", .. })));
}

/// The error that a change of the page header at `page` makes; nothing behind it must have been read.
fn after_change(change: impl Fn(&mut Vec<u8>, usize)) -> Option<WalError> {
    let mut w = Writer::new(START, 8);
    w.fill_page(16);
    w.message(100);
    w.fill_page(0);
    w.message(100);
    assert_all(&w);
    change(&mut w.wal, PAGE as usize);
    let seen = read(&w.wal, START);
    // The first page is not believed either, if the second says otherwise of major or timeline.
    assert!(seen.error.is_none() || w.records[..1].starts_with(&seen.records));
    seen.error
}

fn field(error: Option<WalError>) -> &'static str {
    match error {
        Some(WalError::Mismatch { field, .. } | WalError::BadField { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_header_that_does_not_fit_the_stream_stops_it() {
    assert_eq!(field(after_change(|wal, page| wal[page] ^= 1)), "xlp_magic");
    assert_eq!(field(after_change(|wal, page| wal[page] = 0x10)), "xlp_magic");
    assert_eq!(field(after_change(|wal, page| wal[page + 2] ^= CONTRECORD as u8)), "xlp_info");
    assert_eq!(field(after_change(|wal, page| wal[page + 2] ^= OVERWRITE as u8)), "xlp_info");
    assert_eq!(field(after_change(|wal, page| wal[page + 2] ^= 0x10)), "xlp_info");
    assert_eq!(field(after_change(|wal, page| wal[page + 4] = 0)), "xlp_tli");
    assert_eq!(field(after_change(|wal, page| wal[page + 8] ^= 0x80)), "xlp_pageaddr");
    assert_eq!(field(after_change(|wal, page| wal[page + 16] ^= 1)), "xlp_rem_len");
    // No base backup, or one: nothing depends on it.
    assert_eq!(after_change(|wal, page| wal[page + 2] ^= 4), None);
}

#[test]
fn a_continuation_nobody_began_stops_the_stream() {
    let mut w = Writer::new(START, 8);
    w.fill_page(0);
    w.message(50);
    w.wal[PAGE as usize + 2] |= CONTRECORD as u8;
    let seen = read(&w.wal, START);
    assert_eq!(field(seen.error), "xlp_info");
    assert_eq!(seen.record_end, w.records[0].end);
}

#[test]
fn a_segment_of_another_cluster_stops_the_stream() {
    let mut w = Writer::new(START + SEGMENT - PAGE, 8);
    w.fill_page(0);
    w.message(50);
    let with_id = |id| WalStream::new(Lsn(w.first), SEGMENT, Some(id), None).unwrap();
    assert_eq!(feed_all(with_id(SYSTEM_ID), [&w.wal[..]]).error, None);
    let seen = feed_all(with_id(5), [&w.wal[..]]);
    let at = Lsn(START + SEGMENT);
    let expected = WalError::Mismatch { at, field: "xlp_sysid", expected: 5, found: SYSTEM_ID };
    assert_eq!((seen.error, seen.records.len()), (Some(expected), 1));

    // The first one seen holds for those that follow.
    let mut s = stream(START, None);
    let mut two = Writer::new(START, 8);
    two.switch();
    two.message(50);
    two.wal[SEGMENT as usize + 24] ^= 1;
    assert!(s.feed(&two.wal, &mut |_| Ok(())).is_err());
    assert_eq!(s.system_id(), Some(SYSTEM_ID));

    for (offset, name) in [(32, "xlp_seg_size"), (36, "xlp_xlog_blcksz"), (2, "xlp_info")] {
        let mut wal = w.wal.clone();
        wal[PAGE as usize + offset] ^= 2;
        assert_eq!(field(feed_all(stream(w.first, None), [&wal[..]]).error), name);
    }
}

#[test]
fn pages_of_another_major_stop_the_stream() {
    let mut w = Writer::new(START, 8);
    w.major = Major::V16;
    w.message(50);
    assert_eq!(field(feed_all(stream(START, None).of_major(Major::V17), [&w.wal[..]]).error), "xlp_magic");
    let mut s = stream(START, None);
    s.feed(&w.wal, &mut |raw| {
        assert_eq!(raw.major, Some(Major::V16));
        Ok(())
    })
    .unwrap();
    assert_eq!(s.major(), Some(Major::V16));
}

#[test]
fn the_timeline_of_pages_may_grow() {
    let mut w = Writer::new(START, 8);
    w.fill_page(0);
    w.tli = 3;
    w.fill_page(0);
    assert_all(&w);
    let mut s = stream(START, None);
    s.feed(&w.wal, &mut |_| Ok(())).unwrap();
    assert_eq!(s.tli(), 3);
}

#[test]
fn a_timeline_or_major_that_the_next_page_takes_back_stops_the_stream_before_its_page() {
    let mut w = Writer::new(START, 8);
    w.major = Major::V15;
    w.fill_page(0);
    w.message(70);
    w.fill_page(16);
    w.message(100);
    let mut wal = w.wal.clone();
    wal[PAGE as usize + 4] = 3;
    let seen = read(&wal, START);
    assert_eq!(seen.records, w.records[..1]);
    let at = Lsn(START + PAGE);
    assert_eq!(seen.error, Some(WalError::Mismatch { at, field: "xlp_tli", expected: 1, found: 3 }));
    // In a piece of its own nothing says so yet: its records are given, as they are right.
    let pieces = feed_all(stream(START, None), wal.chunks(PAGE as usize));
    assert_eq!((pieces.records, field(pieces.error)), (w.records[..3].to_vec(), "xlp_tli"));

    // One bit makes the first page one of 18.
    let mut wal = w.wal.clone();
    wal[0] ^= 0x08;
    let seen = read(&wal, START);
    assert_eq!((seen.records.len(), field(seen.error)), (0, "xlp_magic"));
}

#[test]
fn a_length_that_skips_whole_records_stops_the_stream() {
    let mut w = Writer::new(START, 8);
    w.fill_page(16);
    w.message(100);
    let passed = w.message(96);
    w.message(60);
    let mut wal = w.wal[PAGE as usize..].to_vec();
    assert_eq!(wal[16], 84);
    let seen = read(&wal, START + PAGE);
    assert_eq!((seen.error, &seen.records[..]), (None, &w.records[2..]));
    wal[16] += 96;
    let seen = read(&wal, START + PAGE);
    assert_eq!(seen.records, []);
    let expected = WalError::BadField { at: passed.end, field: "xl_prev", value: passed.start.0 };
    assert_eq!(seen.error, Some(expected));
}

#[test]
fn records_are_a_chain() {
    let mut w = Writer::new(START, 0x1234);
    w.message(50);
    assert_eq!(feed_all(stream(START, Some(0x1234)), [&w.wal[..]]).error, None);
    let seen = feed_all(stream(START, Some(0x1238)), [&w.wal[..]]);
    assert_eq!(field(seen.error), "xl_prev");

    w.prev -= 8;
    w.message(50);
    let seen = read(&w.wal, START);
    assert_eq!((field(seen.error), seen.records.len()), ("xl_prev", 1));

    // Of the first record only this is known: the one before it is before it.
    let mut w = Writer::new(START, START + 40);
    w.message(50);
    assert_eq!(field(read(&w.wal, START).error), "xl_prev");
}

#[test]
fn unknown_resource_managers_stop_the_stream_and_custom_ones_do_not() {
    for (rmid, known) in [(0, true), (21, true), (22, false), (127, false), (128, true), (255, true)] {
        let mut w = Writer::new(START, 8);
        w.record(rmid, 0x20, 0, &[255, 1, 7]);
        let seen = read(&w.wal, START);
        assert_eq!(seen.error.is_none(), known, "rmid {rmid}");
    }
}

#[test]
fn zeros_where_a_record_should_be_are_the_end() {
    let mut w = Writer::new(START, 8);
    let last = w.message(50);
    w.wal.resize(3 * PAGE as usize, 0);
    let seen = read(&w.wal, START);
    let expected = WalError::NoRecord { at: last.end };
    assert_eq!((seen.error, seen.record_end), (Some(expected), last.end));
}

#[test]
fn a_length_is_believed_only_as_far_as_bytes_arrive() {
    for tot_len in [1u32, 23, 0x4000_0000, u32::MAX] {
        let mut w = Writer::new(START, 8);
        w.open_page();
        w.wal.extend(tot_len.to_le_bytes());
        assert_eq!(field(read(&w.wal, START).error), "xl_tot_len");
    }
    let mut w = Writer::new(START, 8);
    w.message(2 * PAGE);
    w.wal[40..44].copy_from_slice(&0x3FFF_FFFFu32.to_le_bytes());
    let seen = read(&w.wal, START);
    assert_eq!(field(seen.error), "xlp_rem_len");
    assert_eq!(seen.received, Lsn(START + PAGE));
}

#[test]
fn an_error_stays_and_so_do_the_positions() {
    let mut w = Writer::new(START, 8);
    let good = w.message(50);
    w.message(60);
    let flipped = w.wal.len() - 10;
    w.wal[flipped] ^= 1;
    let mut s = stream(START, None);
    let first = s.feed(&w.wal, &mut |_| Ok(())).unwrap_err();
    assert!(matches!(first, WalError::Checksum { at, .. } if at == good.end));
    assert_eq!(s.feed(&[0; 8], &mut |_| panic!("takes no more")), Err(first));
    assert_eq!((s.record_end(), s.last_record()), (good.end, Some(good.start)));
}

#[test]
fn a_record_that_the_receiver_refuses_is_not_counted() {
    let mut w = Writer::new(START, 8);
    let good = w.message(50);
    w.message(60);
    let mut s = stream(START, None);
    let no = WalError::Truncated { at: Lsn(1), what: "x" };
    let fed = s.feed(&w.wal, &mut |raw| if raw.start == good.start { Ok(()) } else { Err(no.clone()) });
    assert_eq!((fed, s.record_end()), (Err(no.clone()), good.end));
}

#[test]
fn a_stream_cannot_start_where_no_record_can() {
    for start in [0, START + 4, START + 8, START + 32, START + PAGE + 16, 1 << 63] {
        assert!(WalStream::new(Lsn(start), SEGMENT, None, None).is_err(), "{start:X}");
    }
    for seg_size in [0, 1, SEGMENT + 1, SEGMENT / 2, 1 << 31] {
        assert!(WalStream::new(Lsn(START), seg_size, None, None).is_err(), "{seg_size:X}");
    }
}

#[test]
fn every_flipped_bit_gives_the_same_records_or_a_stop_before_it() {
    let mut w = Writer::new(START + SEGMENT - 2 * PAGE, 8);
    let mut draw = Draw(11);
    w.fill_page(16);
    while w.pos() < START + SEGMENT + 900 {
        w.message(26 + draw.below(700));
    }
    let mut wal = w.wal.clone();
    for bit in 0..wal.len() * 8 {
        let (byte, mask) = (bit / 8, 1u8 << (bit % 8));
        wal[byte] ^= mask;
        let seen = read(&wal, w.first);
        wal[byte] ^= mask;
        assert!(w.records.starts_with(&seen.records), "bit {bit}");
        if seen.records.len() < w.records.len() {
            assert!(seen.record_end.0 <= w.first + byte as u64, "bit {bit}");
        }
    }
}

#[test]
fn wal_from_another_place_ends_in_an_error() {
    let mut draw = Draw(3);
    let w = rich();
    for _ in 0..300 {
        let start = START + 8 * draw.below(SEGMENT / 8);
        let Ok(s) = WalStream::new(Lsn(start), SEGMENT, None, None) else { continue };
        let at = draw.below(w.wal.len() as u64 - 20_000) as usize;
        let mut wal = w.wal[at..at + 20_000].to_vec();
        for _ in 0..draw.below(5) {
            let place = draw.below(20_000) as usize;
            wal[place] = draw.next() as u8;
        }
        let seen = feed_all(s, wal.chunks(1 + draw.below(9000) as usize));
        assert!(seen.error.is_some());
    }
}
