//! What `pg_waldump` makes of records: their text, their totals, their page images.

use super::{Filter, Scene, Stats, Zone, waldump};
use crate::Lsn;
use crate::page::PageBuf;
use crate::version::Major;
use crate::wal::span::{self, Place, Sink, WalAt};
use crate::wal::{BlockTag, RawRecord, WalError};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Of which records.
    pub filter: Filter,
    /// What is shown of them.
    pub form: Form,
    /// Whether their page images are kept.
    pub images: bool,
    /// Time zone of the text.
    pub zone: Zone,
}

/// What is shown of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Nothing.
    #[default]
    Nothing,
    /// A line for each.
    Lines,
    /// And one for each of its block references.
    LinesWithBlocks,
    /// Their totals.
    Totals,
}

impl Form {
    /// Whether it is text.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Lines | Self::LinesWithBlocks)
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Dumped<'d> {
    dump: &'d Dump,
    /// Records may still be shown.
    left: u64,
    /// Records shown.
    pub shown: u64,
    /// Start of the first one.
    pub start: Option<Lsn>,
    /// End of the last one.
    pub end: Lsn,
    /// Major version of the last one.
    pub major: Option<Major>,
    /// Text, a line or more a record.
    pub text: Vec<u8>,
    /// Totals.
    pub totals: Option<Stats>,
    /// Images: start of the record, page, bytes.
    pub images: Vec<(Lsn, BlockTag, PageBuf)>,
}

impl Dump {
    /// Nothing yet, of at most `limit` records. `text`: where it is written; emptied first.
    fn begin(&self, limit: u64, mut text: Vec<u8>) -> Dumped<'_> {
        text.clear();
        Dumped {
            dump: self,
            left: limit,
            shown: 0,
            start: None,
            end: Lsn::INVALID,
            major: None,
            text,
            totals: (self.form == Form::Totals).then(Stats::default),
            images: Vec::new(),
        }
    }

    /// Reads on to `to`, as [`span::read`]. `buffer`: where text is written.
    ///
    /// All that runs for each record is compiled here, in one piece: that is worth a third of the time.
    pub fn read(
        &self,
        wal: &dyn WalAt,
        place: &mut Place,
        to: Lsn,
        limit: u64,
        buffer: &(dyn Fn() -> Vec<u8> + Sync),
        keep: &mut dyn FnMut(Dumped<'_>) -> bool,
    ) {
        span::read(wal, place, to, || self.begin(limit, buffer()), keep);
    }
}

impl Sink for Dumped<'_> {
    #[inline]
    fn take(&mut self, raw: &RawRecord<'_>, major: Major) -> Result<(), WalError> {
        let Self { dump, .. } = *self;
        if self.left == 0 || !dump.filter.accepts(raw)? {
            return Ok(());
        }
        if let Some(totals) = &mut self.totals {
            totals.add(raw)?;
        }
        if dump.form.is_text() || dump.images {
            let record = raw.decode()?;
            if dump.form.is_text() {
                let scene = Scene { major, zone: &dump.zone };
                waldump::write_record(&mut self.text, &record, &scene, dump.form == Form::LinesWithBlocks);
            }
            for block in record.blocks.iter().filter(|_| dump.images) {
                if let Some(image) = &block.image {
                    self.images.push((raw.start, block.tag, image.restore(raw.start, block.id)?));
                }
            }
        }
        self.left -= 1;
        self.shown += 1;
        self.start.get_or_insert(raw.start);
        (self.end, self.major) = (raw.end, Some(major));
        Ok(())
    }
}
