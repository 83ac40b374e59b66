//! Decoding of one record: fragments, images, state changes, damage.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod writer;

use walcore::Lsn;
use walcore::page::BLCKSZ;
use walcore::version::Major;
use walcore::wal::event::{CheckPoint, Counts, Event, Parameters};
use walcore::wal::image::Compression;
use walcore::wal::{Fork, RawRecord, Record, RecordHeader, RelTag, WalError};
use writer::{main_data, record_bytes};

const AT: Lsn = Lsn(0x1_0000_0028);

fn decode(bytes: &[u8]) -> Result<Record<'_>, WalError> {
    Record::decode(AT, Lsn(AT.0 + 100), bytes)
}

/// Decodes a heap record with this header section and payload.
fn body(parts: &[&[u8]]) -> Vec<u8> {
    record_bytes(10, 0, 7, 8, &parts.concat())
}

fn block(id: u8, flags: u8, data_len: u16) -> Vec<u8> {
    let mut b = vec![id, flags];
    b.extend(data_len.to_le_bytes());
    b
}

fn image(len: u16, hole_offset: u16, info: u8, hole_length: Option<u16>) -> Vec<u8> {
    let mut b = [len.to_le_bytes(), hole_offset.to_le_bytes()].concat();
    b.push(info);
    b.extend(hole_length.into_iter().flat_map(u16::to_le_bytes));
    b
}

fn tag(rel: [u32; 3], blkno: u32) -> Vec<u8> {
    rel.into_iter().chain([blkno]).flat_map(u32::to_le_bytes).collect()
}

const REL: [u32; 3] = [1663, 5, 16384];

#[test]
fn every_fragment_of_a_record_is_found() {
    let page = vec![3; 8192 - 100];
    let bytes = body(&[
        &block(0, 0x20, 3),
        &tag(REL, 42),
        &block(2, 0x80 | 0x40 | 0x02, 0),
        &9u32.to_le_bytes(),
        &block(32, 0x30, 2),
        &image(8092, 30, 0x03, None),
        &tag([1, 2, 3], u32::MAX),
        &[253, 5, 0],
        &[252, 77, 0, 0, 0],
        &[255, 4],
        b"abc",
        &page,
        b"de",
        b"main",
    ]);
    let record = decode(&bytes).unwrap();
    assert_eq!((record.origin, record.toplevel_xid, record.main_data), (Some(5), Some(77), &b"main"[..]));
    assert_eq!(record.blocks.iter().map(|b| b.id).collect::<Vec<_>>(), [0, 2, 32]);

    let rel = RelTag { spc: 1663, db: 5, rel: 16384 };
    let first = record.block(0).unwrap();
    assert_eq!((first.tag.rel, first.tag.fork, first.tag.blkno), (rel, Fork::Main, 42));
    assert_eq!((first.will_init, first.data, first.applies_image()), (false, &b"abc"[..], false));
    let same = record.block(2).unwrap();
    assert_eq!((same.tag.rel, same.tag.fork, same.tag.blkno), (rel, Fork::Vm, 9));
    assert!(same.will_init && same.data.is_empty());
    let last = record.block(32).unwrap();
    assert_eq!(last.tag.to_string(), "1/2/3 fork=main blk=4294967295");
    assert!(last.applies_image());
    assert_eq!(last.data, b"de");
    let image = last.image.as_ref().unwrap();
    assert_eq!((image.bytes, image.hole_offset, image.hole_length), (&page[..], 30, 100));
    let restored = image.restore(AT, 32).unwrap();
    assert_eq!(restored.bytes()[29..131], [&[3][..], &[0; 100], &[3]].concat());
    assert!(record.block(1).is_none());
}

#[test]
fn long_main_data_and_none_are_found() {
    let bytes = record_bytes(21, 0, 0, 8, &main_data(900, |i| i as u8));
    assert_eq!(decode(&bytes).unwrap().main_data.len(), 895);
    let bytes = record_bytes(0, 0x40, 0, 8, &[]);
    assert!(decode(&bytes).unwrap().main_data.is_empty());
}

fn refused(parts: &[&[u8]]) -> &'static str {
    match decode(&body(parts)) {
        Err(WalError::BadField { field, .. } | WalError::Mismatch { field, .. }) => field,
        Err(WalError::Truncated { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let filler = [0u8; 40];
    let first = [block(3, 0, 0), tag(REL, 1)].concat();
    assert_eq!(refused(&[&first, &block(3, 0x80, 0), &filler]), "block_id");
    assert_eq!(refused(&[&first, &block(2, 0x80, 0), &filler]), "block_id");
    assert_eq!(refused(&[&[33], &filler]), "block_id");
    assert_eq!(refused(&[&[251], &filler]), "block_id");
    assert_eq!(refused(&[&block(0, 0x20, 0), &tag(REL, 1), &filler]), "data_length");
    assert_eq!(refused(&[&block(0, 0, 4), &tag(REL, 1), &filler]), "data_length");
    assert_eq!(refused(&[&block(0, 0x80, 0), &filler]), "fork_flags");
    assert_eq!(refused(&[&block(0, 0x04, 0), &tag(REL, 1)]), "fork_flags");
    assert_eq!(refused(&[&first, &[255, 9], b"short"]), "record length");
    assert_eq!(refused(&[&first, &[255, 3], b"longer"]), "record length");
    assert_eq!(refused(&[&first, &[254], &u32::MAX.to_le_bytes()]), "record length");
}

#[test]
fn image_headers_that_contradict_themselves_are_refused() {
    let with = |image: Vec<u8>, payload: usize| {
        refused(&[&block(0, 0x10, 0), &image, &tag(REL, 1), &vec![0; payload]])
    };
    assert_eq!(with(image(8192, 5, 0x01, None), 8192), "hole_offset");
    assert_eq!(with(image(8000, 0, 0x01, None), 8000), "hole_offset");
    assert_eq!(with(image(8192, 5, 0x00, None), 8192), "hole_offset");
    assert_eq!(with(image(8000, 0, 0x00, None), 8000), "bimg_len");
    assert_eq!(with(image(9000, 10, 0x01, None), 9000), "bimg_len");
    assert_eq!(with(image(8192, 0, 0x04, None), 8192), "bimg_len");
    assert_eq!(with(image(100, 10, 0x05, Some(0)), 100), "hole_offset");
    assert_eq!(with(image(100, 8000, 0x05, Some(193)), 100), "hole_length");
    assert_eq!(with(image(100, 0, 0x0C, None), 100), "bimg_info");
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_record_is_an_error_or_a_record() {
    let bytes = body(&[
        &block(0, 0x30, 3),
        &image(60, 30, 0x05, Some(8000)),
        &tag(REL, 42),
        &block(1, 0x80, 0),
        &9u32.to_le_bytes(),
        &[253, 5, 0, 255, 4],
        &[7; 60],
        b"abcmain",
    ]);
    assert!(decode(&bytes).is_ok());
    for n in 0..bytes.len() {
        assert!(decode(&bytes[..n]).is_err());
    }
    let mut flipped = bytes.clone();
    for bit in 0..bytes.len() * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(record) = decode(&flipped) {
            for block in &record.blocks {
                let _ = block.image.as_ref().map(|image| image.restore(AT, block.id));
            }
        }
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
}

/// A record with one compressed image.
fn compressed(info: u8, stored: &[u8], hole: Option<(u16, u16)>) -> Vec<u8> {
    let (offset, length) = hole.map_or((0, None), |(offset, length)| (offset, Some(length)));
    let info = info | 0x02 | u8::from(hole.is_some());
    body(&[&block(0, 0x10, 0), &image(stored.len() as u16, offset, info, length), &tag(REL, 1), stored])
}

fn restored(bytes: &[u8]) -> Result<Vec<u8>, WalError> {
    let record = decode(bytes).unwrap();
    record.blocks[0].image.as_ref().unwrap().restore(AT, 0).map(|page| page.bytes().to_vec())
}

#[test]
fn images_are_restored_from_every_compression() {
    let page: Vec<u8> =
        (0..BLCKSZ).map(|i| if (100..4100).contains(&i) { 0 } else { (i / 50) as u8 }).collect();
    let without_hole = [&page[..100], &page[4100..]].concat();
    for (hole, raw) in [(None, &page), (Some((100, 4000)), &without_hole)] {
        let lz4 = lz4_flex::block::compress(raw);
        let zstd = zstd::bulk::compress(raw, 1).unwrap();
        assert_eq!(restored(&compressed(0x08, &lz4, hole)).unwrap(), page);
        assert_eq!(restored(&compressed(0x10, &zstd, hole)).unwrap(), page);
        for (info, stored) in [(0x08, lz4), (0x10, zstd)] {
            let cut = compressed(info, &stored[..stored.len() - 1], hole);
            assert!(matches!(restored(&cut), Err(WalError::BadImage { .. })));
            // One byte more of hole: the image is one byte too long.
            let wrong = hole.map_or((1, 1), |(offset, length)| (offset, length + 1));
            let wrong = compressed(info, &stored, Some(wrong));
            assert!(matches!(restored(&wrong), Err(WalError::BadImage { .. })));
        }
    }
}

#[test]
fn pglz_copies_overlap_and_are_clipped() {
    // "ab", then as many as a copy can be: 273 bytes from 2 back; again; the last one longer than the page.
    let mut stored = vec![0b1111_1100, b'a', b'b'];
    for _ in 0..6 {
        stored.extend([0x0F, 2, 255]);
    }
    let eight_copies = [&[0xFF][..], &[0x0F, 2, 255].repeat(8)].concat();
    stored.extend(eight_copies.repeat(3));
    stored.pop();
    let copies = (stored.len() - 3 - 3) / 3;
    let full = 2 + copies * 273 + 18;
    assert!(full < BLCKSZ);
    let hole = (BLCKSZ - full) as u16;
    // The last copy has lost its length byte.
    let bytes = compressed(0x04, &stored, Some((1, hole)));
    assert!(restored(&bytes).is_err());
    stored.push(0);
    let page = restored(&compressed(0x04, &stored, Some((1, hole)))).unwrap();
    assert_eq!(&page[1 + usize::from(hole)..], &b"ba".repeat(BLCKSZ)[..full - 1]);
    stored.pop();
    stored.push(9);
    assert_eq!(restored(&compressed(0x04, &stored, Some((1, hole)))).unwrap(), page);
    // Bytes left over, and copies from before the page.
    stored.push(9);
    assert!(restored(&compressed(0x04, &stored, Some((1, hole)))).is_err());
    assert!(restored(&compressed(0x04, &[1, 0x0F, 0, 9], Some((1, 8000)))).is_err());
    assert!(restored(&compressed(0x04, &[2, 7, 0x0F, 2, 9], Some((1, 8000)))).is_err());
}

#[test]
fn compressions_have_names() {
    let names = [(0x04, "pglz"), (0x08, "lz4"), (0x10, "zstd")];
    for (info, name) in names {
        let bytes = compressed(info, &[0; 10], None);
        assert_eq!(decode(&bytes).unwrap().blocks[0].image.as_ref().unwrap().compression().name(), name);
    }
    assert_eq!(Compression::None.name(), "none");
}

fn event(info: u8, main: &[u8], major: Option<Major>) -> Result<Option<Event>, WalError> {
    let mut body = vec![255, main.len() as u8];
    body.extend(main);
    let bytes = record_bytes(0, info, 0, 8, &body);
    Event::decode(&decode(&bytes).unwrap(), major)
}

#[test]
fn state_changes_are_decoded_in_full() {
    assert_eq!(event(0x80, &[1], None), Ok(Some(Event::FpwChange { full_page_writes: true })));
    assert_eq!(event(0x80, &[0], None), Ok(Some(Event::FpwChange { full_page_writes: false })));
    let overwritten = Lsn(0x1234_5678_9ABC);
    let main = [overwritten.0.to_le_bytes(), [9; 8]].concat();
    assert_eq!(event(0xD0, &main, None), Ok(Some(Event::OverwriteContrecord { overwritten })));
    assert_eq!(event(0x50, &main[..8], None), Ok(Some(Event::BackupEnd { start: overwritten })));
    let main = [&[9; 8][..], &3u32.to_le_bytes(), &2u32.to_le_bytes()].concat();
    assert_eq!(event(0x90, &main, None), Ok(Some(Event::EndOfRecovery { tli: 3, prev_tli: 2 })));
    let main: Vec<u8> = (1..=6i32).flat_map(i32::to_le_bytes).chain([1, 0, 0, 0]).collect();
    let parameters = Parameters {
        max_connections: 1,
        max_worker_processes: 2,
        max_wal_senders: 3,
        max_prepared_xacts: 4,
        max_locks_per_xact: 5,
        wal_level: 6,
        wal_log_hints: true,
        track_commit_timestamp: false,
    };
    assert_eq!(event(0x60, &main, None), Ok(Some(Event::ParameterChange(parameters))));
    // Others are none: NEXTOID.
    assert_eq!(event(0x30, &[0; 4], None), Ok(None));
}

#[test]
fn checkpoints_are_decoded_in_full() {
    // Byte i of the struct is i, so that a field's value tells its offset.
    let main: Vec<u8> = (0..88).collect();
    let u32_at = |i: u8| u32::from_le_bytes([i, i + 1, i + 2, i + 3]);
    let u64_at = |i: u8| u64::from(u32_at(i + 4)) << 32 | u64::from(u32_at(i));
    let body = CheckPoint {
        redo: Lsn(u64_at(0)),
        tli: u32_at(8),
        prev_tli: u32_at(12),
        full_page_writes: true,
        wal_level: Some(u32_at(20)),
        next_xid: u64_at(24),
        next_oid: u32_at(32),
        next_multi: u32_at(36),
        next_multi_offset: u32_at(40),
        oldest_xid: u32_at(44),
        oldest_xid_db: u32_at(48),
        oldest_multi: u32_at(52),
        oldest_multi_db: u32_at(56),
        time: u64_at(64).cast_signed(),
        oldest_commit_ts_xid: u32_at(72),
        newest_commit_ts_xid: u32_at(76),
        oldest_active_xid: u32_at(80),
    };
    assert_eq!(event(0x10, &main, Some(Major::V17)), Ok(Some(Event::Checkpoint { online: true, body })));
    let body = CheckPoint { wal_level: None, ..body };
    assert_eq!(event(0x00, &main, Some(Major::V16)), Ok(Some(Event::Checkpoint { online: false, body })));
    assert!(matches!(event(0x00, &main[..83], None), Err(WalError::Truncated { .. })));
}

#[test]
fn totals_count_commits_and_images() {
    let mut counts = Counts::default();
    let mut add = |bytes: &[u8]| {
        let header = RecordHeader::decode(AT, bytes).unwrap();
        counts.add(&RawRecord { start: AT, end: AT, header, bytes, major: None }).unwrap();
    };
    for (info, main) in [(0x00, 8), (0x80, 20), (0x30, 9), (0x20, 8), (0x10, 30)] {
        add(&record_bytes(1, info, 5, 8, &main_data(main + 2, |_| 0)));
    }
    add(&compressed(0x08, &[0; 77], None));
    let expected = Counts {
        records: 6,
        commits: 3,
        record_bytes: 5 * 26 + 75 + 24 + 25 + 77,
        fpi_count: 1,
        fpi_bytes: 77,
    };
    assert_eq!(counts, expected);
}
