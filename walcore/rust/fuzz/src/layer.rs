//! Layer files.

use std::ops::ControlFlow;

use walcore::Lsn;
use walcore::layer::file::{CRC_LEN, FOOTER_LEN, HEADER_LEN, INDEX_ENTRY_LEN};
use walcore::layer::{LayerFile, Run, Value, merge};
use walcore::reader::Reader;

/// Blocks whose checksums are made true an input.
const MENDS_MAX: usize = 64;

/// Bytes: a layer file. Its checksums are made true, as the engine could not guess them.
///
/// # Panics
/// If a file that [`LayerFile::check`] finds whole does not read, or what it reads does not merge in order.
pub fn layer(input: &[u8]) {
    let mut bytes = input.to_vec();
    read(&bytes);
    mend(&mut bytes);
    read(&bytes);
}

fn read(bytes: &[u8]) {
    let Ok(file) = LayerFile::open(bytes) else { return };
    let is_whole = file.check().is_ok();
    let mut count = 0u64;
    for entry in file.scan_all() {
        let Ok(entry) = entry else {
            assert!(!is_whole, "a whole file does not read");
            break;
        };
        count += 1;
        if let Value::Image(image) = entry.value {
            let _ = image.restore();
        }
        if count % 16 == 0 {
            let _ = file.history(&entry.key, entry.lsn, &mut |_, _| ControlFlow::Continue(()));
        }
    }
    if let Some((first, last)) = file.footer().keys {
        let _ = file.heads(&first, &last, Lsn(u64::MAX), &mut |_, _, _| {});
        let _ = file.history(&last, Lsn(u64::MAX), &mut |_, _| ControlFlow::Break(()));
    }
    if let Ok(merged) = merge(&[&file, &file], Vec::new()) {
        assert!(
            LayerFile::open(merged).is_ok_and(|merged| merged.check().is_ok()),
            "a merged file is not whole"
        );
    }
}

/// Makes the checksums of header, footer, index and blocks true, as far as they can be found.
fn mend(file: &mut [u8]) {
    let Some(footer_at) = file.len().checked_sub(FOOTER_LEN) else { return };
    seal(file, 0, HEADER_LEN);
    let index_at = file.get(footer_at..).and_then(|footer| Reader(footer).u64()).map(|at| at as usize);
    seal(file, footer_at, file.len());
    let Some(index) = index_at.and_then(|at| file.get(at..footer_at)).map(<[u8]>::to_vec) else { return };
    for entry in index.chunks_exact(INDEX_ENTRY_LEN).take(MENDS_MAX) {
        let mut r = Reader(entry);
        let place = r.skip(INDEX_ENTRY_LEN - 12).and_then(|()| Some((r.u64()? as usize, r.u32()? as usize)));
        let Some((at, len)) = place else { return };
        // What overlaps the index or the footer would undo them.
        if at >= HEADER_LEN && at.checked_add(len).is_some_and(|end| end <= index_at.unwrap_or(0)) {
            seal(file, at, at + len);
        }
    }
    seal(file, index_at.unwrap_or(0), footer_at);
}

/// Writes the checksum of `file[start..end]` into its last four bytes.
fn seal(file: &mut [u8], start: usize, end: usize) {
    let Some((body, crc)) = file.get_mut(start..end).and_then(|part| part.split_last_chunk_mut::<CRC_LEN>())
    else {
        return;
    };
    *crc = walcore::crc32c(0, body).to_le_bytes();
}
