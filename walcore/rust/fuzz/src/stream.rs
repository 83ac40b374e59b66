//! WAL as it streams in: pages, records across them, and every record that comes out.

use walcore::Lsn;
use walcore::reader::Reader;
use walcore::wal::page::PAGE_LEN;
use walcore::wal::{PageHeader, RawRecord, RecordHeader, WalError, WalStream};

use crate::record::explain;

const LONG_HEADER: u16 = 2;
/// Checksums made true an input; the engine could not guess them.
const MENDS_MAX: usize = 32;

/// Bytes: how long the pieces are (2), then WAL from a page boundary, which its first page header names.
///
/// # Panics
/// If the records depend on where the pieces are cut, besides what [`explain`] panics of. Only a damaged page header is
/// found out earlier where the next page is here to compare it with: then the records are fewer, and no others.
pub fn stream(input: &[u8]) {
    let Some((piece_len, wal)) = input.split_first_chunk::<2>() else { return };
    let piece_len = usize::from(u16::from_le_bytes(*piece_len)).max(1);
    let Some((start, seg_size)) = place(wal) else { return };
    let mut wal = wal.to_vec();
    let mut seen = Vec::new();
    for _ in 0..MENDS_MAX {
        let Some((records, end)) = read(start, seg_size, wal.chunks(wal.len().max(1))) else { return };
        seen = records;
        let Some(WalError::Checksum { at, found, .. }) = end else { break };
        mend(&mut wal, start, seg_size, at, found);
    }
    let whole = read(start, seg_size, wal.chunks(wal.len().max(1)));
    let pieces = read(start, seg_size, wal.chunks(piece_len));
    assert_same(whole.as_ref(), pieces.as_ref());
    assert!(whole.is_some_and(|(records, _)| records.starts_with(&seen)));
    let Ok(mut stream) = WalStream::new(start, seg_size, None, None) else { return };
    let mut say = |raw: &RawRecord<'_>| {
        explain(raw);
        Ok(())
    };
    let _ = stream.feed(&wal, &mut say).and_then(|()| stream.finish(&mut say));
}

fn assert_same(whole: Option<&Seen>, pieces: Option<&Seen>) {
    if let (Some((fewer, Some(WalError::Mismatch { field: "xlp_tli" | "xlp_magic", .. }))), Some((more, _))) =
        (whole, pieces)
    {
        assert!(more.starts_with(fewer), "a damaged page header changes records before it");
    } else {
        assert_eq!(whole, pieces, "records depend on how the stream is cut");
    }
}

/// Where the first page says that it stands, and how long its segment is.
fn place(wal: &[u8]) -> Option<(Lsn, u64)> {
    let mut r = Reader(wal);
    r.skip(2)?;
    let info = r.u16()?;
    r.skip(4)?;
    let start = Lsn(r.u64()?);
    r.skip(16)?;
    let seg_size = if info & LONG_HEADER == 0 { 1 << 20 } else { r.u32()?.into() };
    (start.0 % PAGE_LEN == 0).then_some((start, seg_size))
}

type Seen = (Vec<(Lsn, Lsn, u32)>, Option<WalError>);

fn read<'p>(start: Lsn, seg_size: u64, pieces: impl Iterator<Item = &'p [u8]>) -> Option<Seen> {
    let mut stream = WalStream::new(start, seg_size, None, None).ok()?;
    let mut records = Vec::new();
    for piece in pieces {
        let fed = stream.feed(piece, &mut |raw| {
            records.push((raw.start, raw.end, raw.header.crc));
            Ok(())
        });
        assert!(stream.record_end() <= stream.received());
        if let Err(error) = fed {
            return Some((records, Some(error)));
        }
    }
    Some((records, None))
}

/// Writes a checksum into the header of the record at `at`, which may go on behind the next page's header.
fn mend(wal: &mut [u8], start: Lsn, seg_size: u64, at: Lsn, crc: u32) {
    let left = PAGE_LEN - at.0 % PAGE_LEN;
    let offset = RecordHeader::LEN as u64 - 4;
    let next = Lsn(at.0 + left);
    let place = at.0 + offset + if offset < left { 0 } else { PageHeader::len_at(next, seg_size) };
    if let Some(field) = wal.get_mut((place - start.0) as usize..).and_then(|tail| tail.first_chunk_mut()) {
        *field = crc.to_le_bytes();
    }
}
