//! Flipped bits in WAL: the same records, or a stop at or before the flip, and never other records.

use walcore::Lsn;
use walcore::wal::page::PAGE_LEN;
use walcore::wal::{RawRecord, WalError, WalStream};

/// A record as it is given out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    start: Lsn,
    end: Lsn,
    bytes: Vec<u8>,
}

/// Sound WAL, read once; a flip is then read again only from its page on, until the stream is as it was without it.
#[derive(Debug)]
pub struct Sample {
    wal: Vec<u8>,
    start: Lsn,
    records: Vec<Given>,
    /// At each page boundary, the one behind the last page included: the stream, and how many records it has given.
    at_page: Vec<(WalStream, usize)>,
}

/// What a flip came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No record depends on the bit.
    Same,
    /// The stream ended at the flip or before it.
    Stopped,
}

impl Sample {
    /// Reads WAL from a page boundary on, of a major that nobody says; the cluster must be known where there is more
    /// than one segment.
    ///
    /// # Errors
    /// What is wrong with the WAL: there must be nothing.
    pub fn new(start: Lsn, seg_size: u64, system_id: Option<u64>, wal: &[u8]) -> Result<Self, WalError> {
        let mut stream = WalStream::new(start, seg_size, system_id, None)?;
        let mut records = Vec::new();
        let mut at_page = vec![(stream.clone(), 0)];
        for page in wal.chunks(PAGE_LEN as usize) {
            stream.feed(page, &mut |raw| {
                records.push(Given { start: raw.start, end: raw.end, bytes: raw.bytes.to_vec() });
                Ok(())
            })?;
            at_page.push((stream.clone(), records.len()));
        }
        Ok(Self { wal: wal.to_vec(), start, records, at_page })
    }

    /// Number of bits that can be flipped.
    pub fn bits(&self) -> usize {
        self.wal.len() * 8
    }

    /// Number of records.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// Reads the sample with one bit flipped: the pages behind it come in the same piece as its page.
    ///
    /// # Errors
    /// What went wrong: another record, or a stop behind the flip.
    pub fn flip(&self, bit: usize) -> Result<Outcome, String> {
        let byte = bit / 8;
        let number = byte / PAGE_LEN as usize;
        let said = |what: &str| format!("{what}: bit={bit} lsn={}", Lsn(self.start.0 + byte as u64));
        let (mut stream, mut given) =
            self.at_page.get(number).cloned().ok_or_else(|| said("no such page"))?;
        let rest = self.wal.get(number * PAGE_LEN as usize..).unwrap_or_default();
        let (head, tail) = rest.split_at_checked(2 * PAGE_LEN as usize).unwrap_or((rest, &[]));
        let mut head = head.to_vec();
        if let Some(byte) = head.get_mut(byte % PAGE_LEN as usize) {
            *byte ^= 1 << (bit % 8);
        }
        let mut other = false;
        let mut each = |raw: &RawRecord<'_>| {
            let known = self.records.get(given);
            other |= known.is_none_or(|r| (r.start, r.end, &r.bytes[..]) != (raw.start, raw.end, raw.bytes));
            given += 1;
            Ok(())
        };
        let mut fed = stream.feed(&head, &mut each);
        let mut is_as_before = false;
        let mut pages = tail.chunks(PAGE_LEN as usize);
        for (sound, _) in self.at_page.iter().skip(number + 2) {
            is_as_before = stream == *sound;
            let Some(page) = pages.next().filter(|_| fed.is_ok() && !is_as_before) else { break };
            fed = stream.feed(page, &mut each);
        }
        if other {
            Err(said("another record"))
        } else if is_as_before || given == self.records.len() {
            Ok(Outcome::Same)
        } else if stream.record_end().0 <= self.start.0 + byte as u64 {
            Ok(Outcome::Stopped)
        } else {
            Err(said("a stop behind the flip"))
        }
    }

    /// Reads the sample cut off at `len` bytes.
    ///
    /// # Errors
    /// What went wrong: another record, one too many or one too few.
    pub fn cut(&self, len: usize) -> Result<(), String> {
        let said = |what: &str| format!("{what}: cut={len} start={}", self.start);
        let number = len / PAGE_LEN as usize;
        let (mut stream, mut given) =
            self.at_page.get(number).cloned().ok_or_else(|| said("no such page"))?;
        let rest = self.wal.get(number * PAGE_LEN as usize..len).unwrap_or_default();
        let fed = stream.feed(rest, &mut |_| {
            given += 1;
            Ok(())
        });
        let whole = self.records.iter().take_while(|r| r.end.0 <= self.start.0 + len as u64).count();
        if fed.is_err() {
            Err(said("an error"))
        } else if given == whole {
            Ok(())
        } else {
            Err(said("other records"))
        }
    }
}
