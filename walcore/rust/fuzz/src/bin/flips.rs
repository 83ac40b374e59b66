//! `flips FILE BYTES`: every bit of the first bytes of a WAL segment flipped, one at a time, and every length cut off.

use std::error::Error;

use walcore::Lsn;
use walcore::reader::Reader;
use walcore::wal::PageHeader;
use walcore_fuzz::flips::{Outcome, Sample};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, bytes] = &arguments[..] else { return Err("two arguments: FILE BYTES".into()) };
    let mut wal = std::fs::read(file)?;
    wal.truncate(bytes.parse()?);
    let start = Lsn(wal.get(8..).and_then(|bytes| Reader(bytes).u64()).ok_or("not a WAL segment")?);
    let long = PageHeader::decode(start, &wal)?.long.ok_or("not the start of a WAL segment")?;
    let sample = Sample::new(start, long.seg_size.into(), None, &wal)?;
    let (mut same, mut stopped) = (0u64, 0u64);
    for bit in 0..sample.bits() {
        match sample.flip(bit)? {
            Outcome::Same => same += 1,
            Outcome::Stopped => stopped += 1,
        }
    }
    for len in 0..wal.len() {
        sample.cut(len)?;
    }
    let (records, cuts) = (sample.records(), wal.len());
    println!(
        r#"{{"records": {records}, "flips": {}, "same": {same}, "stopped": {stopped}, "cuts": {cuts}}}"#,
        sample.bits()
    );
    Ok(())
}
