//! Records read back out of segment files, at the positions that the index keeps.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod writer;

use std::sync::Arc;

use walcore::Lsn;
use walcore::read::{RecordReader, Segment, SegmentError, Segments};
use writer::{Draw, PAGE, SEGMENT, Writer};

const START: u64 = 16 * SEGMENT;

/// Segment files from `START` on.
struct Files(Vec<Arc<Vec<u8>>>);

impl Files {
    fn of(writer: &Writer) -> Self {
        Self(writer.wal.chunks(SEGMENT as usize).map(|file| Arc::new(file.to_vec())).collect())
    }
}

impl Segments for Files {
    fn segment(&self, segno: u64, len: u64) -> Result<Segment, SegmentError> {
        let number = (segno - START / SEGMENT) as usize;
        let found = self.0.get(number).filter(|file| file.len() as u64 >= len);
        let missing = SegmentError::Missing { segno, reason: "no such file".to_owned() };
        found.map(|file| Arc::clone(file) as Segment).ok_or(missing)
    }

    fn segment_size(&self) -> u64 {
        SEGMENT
    }
}

/// Records that end and begin everywhere around the ends of pages and segments.
fn written() -> Writer {
    let mut w = Writer::new(START, 0);
    let mut draw = Draw(7);
    for short in [0, 8, 16, 24, 32] {
        w.fill_page(short);
        w.message(3 * PAGE + short);
    }
    while w.pos() < START + 2 * SEGMENT + 5 * PAGE {
        let most = if draw.below(20) == 0 { 40_000 } else { 200 };
        w.message(26 + draw.below(most));
    }
    w.message(SEGMENT + 333);
    w
}

#[test]
fn every_record_is_read_as_it_was_written() {
    let w = written();
    let files = Files::of(&w);
    let mut reader = RecordReader::new(&files);
    for record in w.records.iter().chain(w.records.iter().rev()) {
        assert_eq!(reader.record(record.start, record.end).unwrap(), record.bytes);
    }
}

#[test]
fn a_flipped_bit_gives_an_error_or_the_same_record() {
    let w = written();
    let mut draw = Draw(11);
    let record = w.records.iter().find(|r| r.bytes.len() > 3 * PAGE as usize).unwrap();
    let (start, end) = ((record.start.0 - START) as usize, (record.end.0 - START) as usize);
    for _ in 0..400 {
        let mut damaged = Writer::new(START, 0);
        damaged.wal.clone_from(&w.wal);
        let byte = start + draw.below((end - start) as u64) as usize;
        damaged.wal[byte] ^= 1 << draw.below(8);
        let files = Files::of(&damaged);
        match RecordReader::new(&files).record(record.start, record.end) {
            Ok(bytes) => assert_eq!(bytes, record.bytes),
            Err(error) => assert!(matches!(error, SegmentError::Wal(_)), "{error}"),
        }
    }
}

#[test]
fn wal_of_another_position_is_not_taken_for_the_record() {
    let w = written();
    let record = w.records.iter().find(|r| r.start.0 > START + SEGMENT + PAGE).unwrap();
    let mut files = Files::of(&w);
    files.0.swap(0, 1);
    assert!(matches!(RecordReader::new(&files).record(record.start, record.end), Err(SegmentError::Wal(_))));
}

#[test]
fn a_missing_or_short_file_is_named() {
    let w = written();
    let last = w.records.last().unwrap();
    let mut files = Files::of(&w);
    let short = files.0.pop().unwrap();
    files.0.push(Arc::new(short[..short.len() - 8].to_vec()));
    let segno = last.end.0 / SEGMENT;
    let error = RecordReader::new(&files).record(last.start, last.end).unwrap_err();
    assert_eq!(error, SegmentError::Missing { segno, reason: "no such file".to_owned() });
}

#[test]
fn positions_that_are_no_record_give_an_error() {
    let w = written();
    let files = Files::of(&w);
    let record = &w.records[20];
    for (start, end) in [
        (record.start.0 + 8, record.end.0),
        (record.start.0, record.end.0 - 8),
        (record.start.0, record.start.0),
        (record.end.0, record.start.0),
    ] {
        assert!(RecordReader::new(&files).record(Lsn(start), Lsn(end)).is_err(), "{start:X} to {end:X}");
    }
}
