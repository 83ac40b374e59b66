//! `seeds TARGET_FOLDER WAL_FOLDER…`: inputs for every target out of the WAL files in each folder, in order of name.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use walcore::Lsn;
use walcore::layer::{Header, Key, LayerWriter, PageImage, Size, Touch, Value, page_image};
use walcore::page::PageBuf;
use walcore::reader::Reader;
use walcore::redo::Target;
use walcore::version::Major;
use walcore::wal::RawRecord;
use walcore::wal::page::PAGE_LEN;
use walcore_fuzz::replay::{AnyError, Meeting, Recording, Replay};
use walcore_fuzz::{bits_of, redo};

/// Inputs of one kind: resource manager, record type, number of blocks, major, and whether it is long.
const PER_KIND: usize = 3;
/// Pages in an input for `stream`, of how many such pieces one is taken, and how many at most.
const STREAM_PAGES: usize = 2;
const STREAM_EVERY: usize = 75;
const STREAMS: usize = 120;
/// How the pieces of such an input are cut, in turn.
const PIECE_LENS: [u16; 4] = [0, 1000, 9, 8192];
/// Images in a folder of each compression.
const IMAGES: usize = 12;

struct Seeds {
    folder: PathBuf,
    major: Major,
    seen: HashMap<String, usize>,
}

impl Seeds {
    /// Keeps an input, unless there are enough of its kind.
    fn keep(&mut self, target: &str, kind: &str, most: usize, input: impl FnOnce() -> Option<Vec<u8>>) {
        let count = self.seen.entry(format!("{target}-{kind}")).or_default();
        if *count >= most {
            return;
        }
        let Some(input) = input() else { return };
        *count += 1;
        let folder = self.folder.join(target);
        let name = format!("{}-{kind}-{count}", self.major as u8);
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(name), input));
        written.unwrap_or_else(|error| panic!("cannot write a seed: {error}"));
    }

    fn record(&mut self, raw: &RawRecord<'_>, replay: &mut Replay) -> Result<(), AnyError> {
        let record = raw.decode()?;
        let (rmid, info, blocks) = (raw.header.rmid, raw.header.rmgr_info(), record.blocks.len());
        let is_long = raw.bytes.len() > 300;
        let kind = format!("{rmid:02}-{info:02x}-{blocks}-{is_long}");
        let major = self.major;
        if raw.bytes.len() < 10_000 {
            self.keep("record", &kind, PER_KIND, || Some([&[bits_of(major)], raw.bytes].concat()));
        }
        for block in &record.blocks {
            let Some(image) = &block.image else { continue };
            let kind = format!("{}-{}", image.compression().name(), image.hole_length > 0);
            let head =
                [&[image.info][..], &image.hole_offset.to_le_bytes(), &image.hole_length.to_le_bytes()];
            self.keep("image", &kind, IMAGES, || Some([&head.concat(), image.bytes].concat()));
        }
        replay.add(raw, &mut |meeting| self.redo(meeting, &kind))
    }

    fn redo(&mut self, meeting: &Meeting<'_>, kind: &str) {
        let kind = format!("{kind}-{}-{}", meeting.number, meeting.starts);
        let major = self.major;
        self.keep("redo", &kind, PER_KIND, || {
            let mut page = meeting.page.cloned().unwrap_or_else(PageBuf::zeroed);
            if matches!(meeting.target, Target::Block(_)) {
                // Before any record, wherever that is put.
                page.set_lsn(Lsn(0));
            }
            redo::encode(meeting.bytes, Some(&page), major)
        });
    }

    /// Some pages as a layer, with values of every kind.
    fn layer(&mut self, replay: &Replay) -> Result<(), AnyError> {
        let known = replay.pages.iter();
        let mut pages: Vec<_> = known
            .filter_map(|(target, page)| match target {
                Target::Block(tag) => Some((Key::page(tag), page.clone())),
                Target::Slru { .. } => None,
            })
            .collect();
        pages.sort_unstable_by_key(|(key, _)| *key);
        for (n, few) in pages.chunks(5).take(20).enumerate() {
            let header = Header { system_id: 7, start_lsn: Lsn(0x100), end_lsn: Lsn(0x9000) };
            let mut writer = LayerWriter::new(Vec::new(), &header)?;
            let mut scratch = Vec::new();
            for (key, page) in few {
                let touch = Touch { distance: 300, will_init: true, has_image: false };
                writer.push(key, Lsn(0x3000), &Value::Wal(touch, None))?;
                writer.push(key, Lsn(0x2000), &Value::Record(touch, None, b"a record"))?;
                let image = page_image(page.bytes(), &mut scratch);
                let fits = matches!(image, PageImage::Lz4(bytes) if bytes.len() < 3000);
                writer.push(key, Lsn(0x1000), &if fits { Value::Image(image) } else { Value::Tombstone })?;
            }
            if let Some((key, _)) = few.last() {
                let size = Size { blocks: 102, floor_lsn: Lsn(0x300), floor_blocks: 7 };
                writer.push(&key.size_key(), Lsn(0x700), &Value::Size(size))?;
                writer.push(&key.size_key(), Lsn(0x600), &Value::Copied { blocks: 4, spc: 1663, db: 1 })?;
            }
            let file = writer.finish()?;
            self.keep("layer", &format!("pages-{n}"), 1, || Some(file));
        }
        Ok(())
    }
}

fn wal_folder(seeds_folder: &Path, folder: &Path) -> Result<(), AnyError> {
    let recording = Recording::open(folder)?;
    let (major, mut stream) = (recording.major, recording.stream()?);
    let mut replay = Replay::new(major);
    let mut seeds = Seeds { folder: seeds_folder.to_owned(), major, seen: HashMap::new() };
    let mut number = 0;
    recording.pieces(STREAM_PAGES * PAGE_LEN as usize, &mut |pages| {
        let is_used = Reader(pages).u16().is_some_and(|magic| magic != 0);
        if is_used && (number % STREAM_EVERY == 0 || stream.received().0 % recording.seg_size == 0) {
            let len = PIECE_LENS.get(number / STREAM_EVERY % PIECE_LENS.len()).copied().unwrap_or_default();
            seeds.keep("stream", "pages", STREAMS, || Some([&len.to_le_bytes(), pages].concat()));
        }
        number += 1;
        let fed = stream.feed(pages, &mut |raw| {
            seeds.record(raw, &mut replay).unwrap_or_else(|error| panic!("sound WAL is refused: {error}"));
            Ok(())
        });
        if fed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    seeds.layer(&replay)
}

fn main() -> Result<(), AnyError> {
    let mut folders = std::env::args().skip(1).map(PathBuf::from);
    let target = folders.next().ok_or("no folder for the seeds")?;
    folders.try_for_each(|folder| wal_folder(&target, &folder))
}
