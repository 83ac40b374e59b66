//! Layer files: what is written comes back, and damage is seen.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod writer;

use std::ops::ControlFlow;

use walcore::Lsn;
use walcore::layer::{
    Batch, DeltaCount, Header, Key, Kind, LayerError, LayerFile, LayerWriter, OpenLayer, PageImage, Run,
    Size, Touch, Value, merge,
};
use walcore::wal::{BlockTag, Fork, RelTag};
use writer::Draw;

const HEADER: Header =
    Header { system_id: 0x1122_3344_5566_7788, start_lsn: Lsn(0x100), end_lsn: Lsn(0x9000) };

fn page(blkno: u32) -> Key {
    Key::page(&BlockTag { rel: RelTag { spc: 1663, db: 5, rel: 16384 }, fork: Fork::Main, blkno })
}

fn touch(distance: u32) -> Value<'static> {
    Value::Wal(Touch { distance, will_init: false, has_image: false }, None)
}

type Entries = Vec<(Key, Lsn, Value<'static>)>;

/// Of every kind, in order.
fn some_entries() -> Entries {
    let mut entries = Vec::new();
    for blkno in 0..40 {
        for lsn in (1..=u64::from(blkno % 5 + 1)).rev() {
            entries.push((page(blkno), Lsn(lsn * 0x1000), touch(blkno * 1000)));
        }
    }
    let count = DeltaCount { deltas: 9, bytes: 800, based: false };
    entries.push((page(100), Lsn(0x800), Value::Record(Touch::default(), Some(count), b"a record")));
    entries.push((page(101), Lsn(0x800), Value::Image(PageImage::Lz4(b"a page"))));
    let size = Size { blocks: 102, floor_lsn: Lsn(0x300), floor_blocks: 7 };
    entries.push((page(0).size_key(), Lsn(0x700), Value::Size(size)));
    entries.push((page(0).size_key(), Lsn(0x600), Value::Copied { blocks: 4, spc: 1663, db: 1 }));
    entries.push((Key { kind: Kind::RelMap, ..page(0) }, Lsn(0x600), Value::Blob(b"a map")));
    entries.push((Key { kind: Kind::TwoPhase, ..page(0) }, Lsn(0x600), Value::Tombstone));
    entries
}

fn written(entries: &Entries) -> Vec<u8> {
    let mut writer = LayerWriter::new(Vec::new(), &HEADER).unwrap();
    for (key, lsn, value) in entries {
        writer.push(key, *lsn, value).unwrap();
    }
    writer.finish().unwrap()
}

/// Opens it and reads all of it; what is in it must be these entries, if it can be read at all.
fn read(bytes: &[u8], expected: &Entries) -> Result<(), LayerError> {
    let file = LayerFile::open(bytes)?;
    assert_eq!(*file.header(), HEADER);
    let mut found = Vec::new();
    for entry in file.scan_all() {
        let entry = entry?;
        found.push((entry.key, entry.lsn, entry.value));
    }
    assert_eq!(found, *expected);
    file.check()
}

#[test]
fn what_is_written_comes_back() {
    let entries = some_entries();
    let bytes = written(&entries);
    assert_eq!(read(&bytes, &entries), Ok(()));
    assert_eq!(LayerFile::open(&bytes).unwrap().entries(), entries.len() as u64);
    assert_eq!(read(&written(&Vec::new()), &Vec::new()), Ok(()));
}

#[test]
fn every_truncation_is_seen() {
    let entries = some_entries();
    let bytes = written(&entries);
    for len in 0..bytes.len() {
        assert!(read(&bytes[..len], &entries).is_err(), "{len} of {} bytes", bytes.len());
    }
}

#[test]
fn every_flipped_bit_is_seen() {
    let entries = some_entries();
    let bytes = written(&entries);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&damaged, &entries).is_err(), "bit {bit}");
    }
}

#[test]
fn entries_out_of_order_are_damage() {
    let entry = |lsn| (page(1), Lsn(lsn), Value::Image(PageImage::Lz4(b"a page")));
    let mut bytes = written(&vec![entry(0x600), entry(0x500)]);
    assert_eq!(LayerFile::open(&bytes).unwrap().check(), Ok(()));

    // The second entry shares 25 bytes with the first; then come two of its LSN, inverted: 0x500 becomes 0x700.
    let at = bytes.windows(3).position(|w| w == [25, 0xFA, 0xFF]).unwrap();
    bytes[at + 1] = 0xF8;
    let end = LayerFile::open(&bytes).unwrap().footer().index_offset as usize;
    let crc = walcore::crc32c(0, &bytes[48..end - 4]);
    bytes[end - 4..end].copy_from_slice(&crc.to_le_bytes());

    let error = LayerFile::open(&bytes).unwrap().check().unwrap_err();
    assert!(matches!(error, LayerError::Malformed { what: "order of entries", .. }), "{error}");
}

#[test]
fn damage_in_one_block_leaves_the_others_readable() {
    let entries: Entries = (0..20_000).map(|blkno| (page(blkno), Lsn(0x1000), touch(1))).collect();
    let mut bytes = written(&entries);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;

    let file = LayerFile::open(bytes).unwrap();
    let found = |blkno| {
        let mut found = 0;
        file.history(&page(blkno), Lsn(0x1000), &mut |_, _| {
            found += 1;
            ControlFlow::Continue(())
        })
        .map(|()| found)
    };

    assert_eq!((found(0), found(19_999)), (Ok(1), Ok(1)));
    let damaged = (0..20_000).filter(|blkno| found(*blkno).is_err()).count();
    assert!((1..5000).contains(&damaged), "{damaged} entries");
}

#[test]
fn a_history_is_found_wherever_it_lies() {
    // Enough for many blocks; some histories span two.
    let mut entries = Entries::new();
    for blkno in 0..3000 {
        for lsn in (1..=u64::from(blkno % 13)).rev() {
            entries.push((page(blkno), Lsn(lsn * 0x100), touch(lsn as u32)));
        }
    }
    let file = LayerFile::open(written(&entries)).unwrap();
    assert!(file.footer().blocks > 5);
    for blkno in 0..3001 {
        for at in [0x50, 0x100, 0x650, 0x700, 0x10_000] {
            let mut found = Vec::new();
            file.history(&page(blkno), Lsn(at), &mut |lsn, value| {
                found.push((page(blkno), lsn, format!("{value:?}")));
                ControlFlow::Continue(())
            })
            .unwrap();
            let asked = |(key, lsn, _): &&(Key, Lsn, Value<'_>)| *key == page(blkno) && lsn.0 <= at;
            let expected: Vec<_> = entries
                .iter()
                .filter(asked)
                .map(|(k, lsn, value)| (*k, *lsn, format!("{value:?}")))
                .collect();
            assert_eq!(found, expected);
            if blkno > 200 && blkno % 100 != 0 {
                break;
            }
        }
    }
}

#[test]
fn entries_out_of_order_are_refused() {
    for (first, second) in [((1, 0x200), (0, 0x200)), ((1, 0x200), (1, 0x300)), ((1, 0x200), (1, 0x200))] {
        let mut writer = LayerWriter::new(Vec::new(), &HEADER).unwrap();
        writer.push(&page(first.0), Lsn(first.1), &touch(1)).unwrap();
        assert!(writer.push(&page(second.0), Lsn(second.1), &touch(1)).is_err());
    }
}

/// The parts of a file that end in a checksum.
fn parts(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (blocks, footer) = bytes.split_at(bytes.len() - 80);
    let u64_at = |from: &[u8], at: usize| u64::from_le_bytes(from[at..at + 8].try_into().unwrap()) as usize;
    let (index, count) = (u64_at(footer, 0), u64_at(footer, 8));
    let mut parts = vec![0..48, index..blocks.len(), blocks.len()..bytes.len()];
    for number in 0..count {
        let entry = &bytes[index + number * 39..][..39];
        let len = u32::from_le_bytes(entry[35..].try_into().unwrap()) as usize;
        let offset = u64_at(entry, 27);
        parts.push(offset..offset + len);
    }
    parts
}

#[test]
fn content_that_cannot_be_is_an_error_even_where_checksums_hold() {
    let good = written(&some_entries());
    let parts = parts(&good);
    let mut draw = Draw(3);
    for _ in 0..5_000 {
        let mut bytes = good.clone();
        for _ in 0..=draw.below(3) {
            let at = draw.below(bytes.len() as u64) as usize;
            bytes[at] = [0, 1, 0x7F, 0xFF, bytes[at] ^ (1 << draw.below(8))][draw.below(5) as usize];
        }
        for part in &parts {
            let body = part.start..part.end - 4;
            let crc = walcore::crc32c(0, &bytes[body]);
            bytes[part.end - 4..part.end].copy_from_slice(&crc.to_le_bytes());
        }
        let Ok(file) = LayerFile::open(bytes) else { continue };
        // Whatever it holds now: no panic, and an end.
        let _ = file.check();
        let _ = merge(&[&file, &file], Vec::new());
        for key in [page(0), page(20), page(0).size_key()] {
            let _ = file.history(&key, Lsn(0x2000), &mut |_, _| ControlFlow::Continue(()));
        }
        let _ = file.heads(&page(0).size_key(), &page(9).size_key(), Lsn(0x2000), &mut |_, _, _| {});
    }
}

#[test]
fn a_file_that_is_none_says_so() {
    let mut other = written(&some_entries());
    other[0] = b'X';
    assert!(matches!(LayerFile::open(other), Err(LayerError::Unknown { field: "magic", .. })));
    let mut newer = written(&some_entries());
    newer[8] = 3;
    assert!(matches!(LayerFile::open(newer), Err(LayerError::Unknown { field: "version", value: 3 })));
}

/// A layer in memory with these touches: block, end LSN, whether it is a base.
fn open_layer(start: u64, end: u64, touches: &[(u32, u64, bool)]) -> OpenLayer {
    let layer = OpenLayer::new(HEADER.system_id, Lsn(start));
    let mut batch = Batch::default();
    for (blkno, lsn, will_init) in touches {
        let touch = Touch { distance: 100, will_init: *will_init, has_image: false };
        batch.touches.push((page(*blkno), Lsn(*lsn), touch));
    }
    layer.apply(&mut batch, Lsn(end));
    layer
}

fn count(layer: &dyn Run, blkno: u32) -> Option<DeltaCount> {
    let mut count = None;
    layer
        .history(&page(blkno), Lsn(u64::MAX), &mut |_, value| {
            if let Value::Wal(_, newest) = value {
                count = newest;
            }
            ControlFlow::Break(())
        })
        .unwrap();
    count
}

#[test]
fn deltas_are_counted_from_the_last_base_in_memory_in_files_and_over_merged_layers() {
    let old = open_layer(0x100, 0x200, &[(1, 0x110, true), (1, 0x120, false), (2, 0x130, false)]);
    let new = open_layer(0x200, 0x300, &[(1, 0x210, false), (2, 0x220, true), (2, 0x230, false)]);
    let file = |layer: &OpenLayer| LayerFile::open(layer.write_to(Vec::new()).unwrap()).unwrap();
    let merged = LayerFile::open(merge(&[&file(&old), &file(&new)], Vec::new()).unwrap()).unwrap();

    let run = |deltas, based| Some(DeltaCount { deltas, bytes: deltas * 100, based });
    for (layer, first, second) in [
        (&old as &dyn Run, run(1, true), run(1, false)),
        (&new, run(1, false), run(1, true)),
        (&file(&old), run(1, true), run(1, false)),
        (&merged, run(2, true), run(1, true)),
    ] {
        assert_eq!((count(layer, 1), count(layer, 2)), (first, second));
    }
    assert_eq!((merged.start_lsn(), merged.end_lsn(), merged.entries()), (Lsn(0x100), Lsn(0x300), 6));
}

#[test]
fn merging_keeps_the_image_where_a_record_has_the_same_lsn() {
    let layer = |value: &Value<'_>| {
        let mut writer = LayerWriter::new(Vec::new(), &HEADER).unwrap();
        writer.push(&page(3), Lsn(0x500), value).unwrap();
        LayerFile::open(writer.finish().unwrap()).unwrap()
    };
    let (record, image) = (layer(&touch(8)), layer(&Value::Image(PageImage::Lz4(b"page"))));
    for order in [[&record, &image], [&image, &record]] {
        let merged = LayerFile::open(merge(&order, Vec::new()).unwrap()).unwrap();
        let entry = merged.scan_all().next().unwrap().unwrap();
        assert_eq!((entry.value, merged.entries()), (Value::Image(PageImage::Lz4(b"page")), 1));
    }
}
