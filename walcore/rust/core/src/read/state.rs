//! State that is no page, at an LSN.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{PageReader, ReadError, SegmentError};
use crate::layer::{Key, Kind, LayerError, Value};
use crate::reader::Reader;
use crate::redo::Slru;
use crate::redo::touch::CLOG_XIDS_PER_PAGE;
use crate::rmgr::xact::XactEnd;
use crate::state::{Control, Cut};
use crate::wal::{WalError, WalStream};
use crate::{Lsn, rmgr};

/// WAL read at once for counters.
const PIECE: u64 = 64 << 10;

/// A relation map, or where it was copied from: tablespace, database, as of when.
enum MapValue {
    Map(Vec<u8>),
    Copied(u32, u32, Lsn),
}

impl PageReader {
    /// Counters, settings and origins as of an LSN.
    ///
    /// # Errors
    /// `NoControl` if ingest was not told what it began with; `Roll` if WAL is missing; damage of a layer.
    pub fn control(&self, at: Lsn) -> Result<Control, ReadError> {
        self.check_covered(at)?;
        let noted = self.index.state(&Key::control(), at, |lsn, value| match value {
            Value::Blob(bytes) => Control::decode(&mut Reader(bytes)).map(|control| (lsn, control)),
            _ => None,
        })?;
        let (from, mut control) = noted.ok_or(ReadError::NoControl { at })?;
        let unreadable = |error| ReadError::Roll { from, at, error };
        self.roll(&mut control, from, at).map_err(unreadable)?;
        Ok(control)
    }

    /// Takes every record between two positions into account.
    fn roll(&self, control: &mut Control, from: Lsn, at: Lsn) -> Result<(), SegmentError> {
        let segment_size = self.segments.segment_size();
        let mut stream = WalStream::new(from, segment_size, None, None)?;
        let mut position = from.0;
        while position < at.0 {
            let (segno, offset) = (position / segment_size, position % segment_size);
            let end = at.0.min((segno + 1) * segment_size).min(position + PIECE);
            let len = offset + (end - position);
            let segment = self.segments.segment(segno, len)?;
            let bytes = segment.as_ref().as_ref().get(offset as usize..len as usize).unwrap_or_default();
            stream.feed(bytes, &mut |raw| {
                let record = raw.decode()?;
                let short = || WalError::Truncated { at: raw.start, what: "record" };
                let is_end = record.header.rmid == rmgr::XACT;
                let end =
                    if is_end { XactEnd::decode(&record, control.major).ok_or_else(short)? } else { None };
                control.follow(&record, end.as_ref()).ok_or_else(short)?;
                Ok(())
            })?;
            position = end;
        }
        Ok(())
    }

    /// Whether ingest was told the counters and settings that it began with.
    pub(super) fn is_control_known(&self, at: Lsn) -> Result<bool, LayerError> {
        Ok(self.index.state(&Key::control(), at, |_, _| Some(()))?.is_some())
    }

    /// When a page of an SLRU was last removed; invalid if never since the base.
    pub(super) fn removed_lsn(&self, kind: Slru, pageno: u32, at: Lsn) -> Result<Lsn, LayerError> {
        let mut removed = Lsn::INVALID;
        let mut is_damaged = false;
        for layer in self.index.layers() {
            layer.history(&Key::slru_cut(kind), at, &mut |lsn, value| {
                if lsn <= removed {
                    return ControlFlow::Break(());
                }
                let cut = if let Value::Blob(bytes) = value { Cut::decode(bytes) } else { None };
                match cut {
                    Some(cut) if !cut.removes(kind, pageno) => return ControlFlow::Continue(()),
                    Some(_) => removed = lsn,
                    None => is_damaged = true,
                }
                ControlFlow::Break(())
            })?;
        }
        if is_damaged {
            return Err(LayerError::Malformed { what: "removal of SLRU pages", offset: 0 });
        }
        Ok(removed)
    }

    /// The bytes of a relation map (`pg_filenode.map`) as of an LSN; `None` if there is none then.
    ///
    /// # Errors
    /// `NotCovered`; damage of a layer.
    pub fn relation_map(&self, spc: u32, db: u32, at: Lsn) -> Result<Option<Vec<u8>>, ReadError> {
        self.check_covered(at)?;
        let (mut key, mut at) = (Key::of_database(Kind::RelMap, spc, db), at);
        loop {
            let value = self.index.state(&key, at, |lsn, value| match *value {
                Value::Blob(bytes) => Some(MapValue::Map(bytes.to_vec())),
                Value::Copied { spc, db, .. } => Some(MapValue::Copied(spc, db, lsn)),
                _ => None,
            })?;
            match value {
                None => return Ok(None),
                Some(MapValue::Map(map)) => return Ok(Some(map)),
                Some(MapValue::Copied(spc, db, lsn)) => {
                    // The record that copies does not change what is copied.
                    (key, at) = (Key { spc, db, ..key }, Lsn(lsn.0.saturating_sub(1)));
                }
            }
        }
    }

    /// Every prepared transaction as of an LSN: its full id and the bytes of its state file, ascending.
    ///
    /// # Errors
    /// `NotCovered`; damage of a layer; a page of `pg_xact` that cannot be read.
    pub fn prepared(&self, at: Lsn) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        let mut prepared = Vec::new();
        for (key, state) in self.blobs(Kind::TwoPhase, at)? {
            // A base backup may have copied the file of one that had ended: its removal is not logged.
            if self.is_in_progress(key.rel, at)? {
                prepared.push((key.full_xid(), state));
            }
        }
        prepared.sort_unstable_by_key(|(xid, _)| *xid);
        Ok(prepared)
    }

    fn is_in_progress(&self, xid: u32, at: Lsn) -> Result<bool, ReadError> {
        let Some(page) = self.slru_page(Slru::Clog, xid / CLOG_XIDS_PER_PAGE, at)? else { return Ok(false) };
        let place = (xid % CLOG_XIDS_PER_PAGE) as usize;
        let byte = page.bytes().get(place / 4).copied().unwrap_or_default();
        let status = byte >> (place % 4 * 2) & 3;
        Ok(status == 0)
    }

    /// Every database's part in a tablespace as of an LSN: (tablespace, database), ascending. Parts that were begun by a
    /// relation alone are only in [`Self::relations`].
    ///
    /// # Errors
    /// `NotCovered`; damage of a layer.
    pub fn databases(&self, at: Lsn) -> Result<Vec<(u32, u32)>, ReadError> {
        Ok(self.blobs(Kind::Database, at)?.into_iter().map(|(key, _)| (key.spc, key.db)).collect())
    }

    /// Every tablespace of its own as of an LSN, and its path as Postgres logged it: empty for one in place; ascending.
    ///
    /// # Errors
    /// `NotCovered`; damage of a layer.
    pub fn tablespaces(&self, at: Lsn) -> Result<Vec<(u32, Vec<u8>)>, ReadError> {
        Ok(self.blobs(Kind::Tablespace, at)?.into_iter().map(|(key, path)| (key.spc, path)).collect())
    }

    /// What exists of a kind at an LSN, ascending.
    fn blobs(&self, kind: Kind, at: Lsn) -> Result<Vec<(Key, Vec<u8>)>, ReadError> {
        self.check_covered(at)?;
        let first = Key::of_database(kind, 0, 0);
        let last =
            Key { spc: u32::MAX, db: u32::MAX, rel: u32::MAX, fork: u8::MAX, blkno: u32::MAX, ..first };
        let mut newest: BTreeMap<Key, (Lsn, Option<Vec<u8>>)> = BTreeMap::new();
        for layer in self.index.layers() {
            layer.heads(&first, &last, at, &mut |key, lsn, value| {
                let held = newest.entry(key).or_default();
                if lsn >= held.0 {
                    let bytes = if let Value::Blob(bytes) = value { Some(bytes.to_vec()) } else { None };
                    *held = (lsn, bytes);
                }
            })?;
        }
        Ok(newest.into_iter().filter_map(|(key, (_, bytes))| Some((key, bytes?))).collect())
    }
}
