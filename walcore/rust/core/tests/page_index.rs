//! The index against a model that keeps every page of every moment.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use walcore::Lsn;
use walcore::ingest::Sizes;
use walcore::layer::{
    Batch, Header, Key, LayerFile, LayerWriter, OpenLayer, PageImage, Run, Size, Touch, Value, merge,
};
use walcore::page::PageBuf;
use walcore::read::{Index, ReadError};
use walcore::wal::{BlockTag, Fork, RelTag};
use writer::Draw;

/// What was done to a page since it came to be: the ends of the records, or of its image.
type History = Vec<u64>;

/// A fork as anyone would keep it: its blocks, each with its history.
type Forks = BTreeMap<(RelTag, Fork), Vec<History>>;

const BASE_LSN: u64 = 0x1000;

/// One timeline, kept twice: by the index and by the model.
struct World {
    draw: Draw,
    lsn: u64,
    model: Forks,
    /// The model after every record, by the record's end.
    moments: Vec<(u64, Forks)>,
    sizes: Sizes,
    batch: Batch,
    open: Arc<OpenLayer>,
    closed: Vec<LayerFile<Vec<u8>>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut draw = Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut sizes = Sizes::default();
        let mut model = Forks::new();
        for number in 10..12 {
            let rel = RelTag { spc: 1663, db: 1, rel: number };
            let blocks = draw.below(4) as u32;
            sizes.insert(rel, Fork::Main, blocks);
            model.insert((rel, Fork::Main), vec![vec![BASE_LSN]; blocks as usize]);
        }
        let base = base_layer(&model);
        Self {
            draw,
            lsn: BASE_LSN,
            moments: vec![(BASE_LSN, model.clone())],
            model,
            sizes,
            batch: Batch::default(),
            open: Arc::new(OpenLayer::new(7, Lsn(BASE_LSN))),
            closed: vec![base],
        }
    }

    /// One record does one thing.
    fn step(&mut self) {
        let start = Lsn(self.lsn);
        let end = Lsn(self.lsn + 8 * (1 + self.draw.below(5)));
        self.lsn = end.0;
        let db = 1 + self.draw.below(2) as u32;
        let rel = RelTag { spc: 1663, db, rel: 10 + self.draw.below(3) as u32 };
        let fork = if self.draw.below(4) == 0 { Fork::Vm } else { Fork::Main };
        let changes = &mut self.batch.states;
        match self.draw.below(24) {
            0 => {
                self.sizes.create(rel, fork, end, changes);
                self.model.entry((rel, fork)).or_default();
            }
            1 => {
                self.sizes.drop_relation(rel, end, changes);
                self.model.retain(|(r, _), _| *r != rel);
            }
            2 | 3 => {
                let blocks = self.draw.below(6) as u32;
                self.sizes.truncate(rel, fork, blocks, end, changes);
                if let Some(pages) = self.model.get_mut(&(rel, fork)) {
                    pages.truncate(blocks as usize);
                }
            }
            4 if self.draw.below(3) == 0 => {
                self.sizes.drop_database(rel.spc, rel.db, end, changes);
                self.model.retain(|(r, _), _| r.db != rel.db);
            }
            5 => {
                let (from, to) = (rel.db, 3 - rel.db);
                self.sizes.copy_database((1663, from), (1663, to), end, changes);
                self.model.retain(|(r, _), _| r.db != to);
                let copies: Vec<_> = self.model.clone().into_iter().collect();
                for ((r, fork), pages) in copies {
                    self.model.insert((RelTag { db: to, ..r }, fork), pages);
                }
            }
            6 => self.stray(rel, fork, start, end),
            _ => self.touch(rel, fork, start, end),
        }
        self.moments.push((self.lsn, self.model.clone()));
        if self.draw.below(3) == 0 {
            self.open.apply(&mut self.batch, end);
        }
        if self.draw.below(40) == 0 {
            self.freeze();
        }
    }

    fn touch(&mut self, rel: RelTag, fork: Fork, start: Lsn, end: Lsn) {
        let blkno = self.draw.below(7) as usize;
        let is_base = self.draw.below(3) == 0;
        let exists = self.model.get(&(rel, fork)).is_some_and(|pages| pages.len() > blkno);
        // Beside the records that start a page, only those of the visibility map make one.
        if !(exists || is_base || fork == Fork::Vm) {
            return;
        }
        let pages = self.model.entry((rel, fork)).or_default();
        pages.resize(pages.len().max(blkno + 1), History::new());
        if is_base {
            pages[blkno].clear();
        }
        pages[blkno].push(end.0);
        self.sizes.extend(rel, fork, blkno as u32, start, end, &mut self.batch.states);
        self.index(rel, fork, blkno as u32, start, end, is_base);
    }

    /// A record on a block that the fork has not, because the base has seen a later cut of it: then comes that cut.
    fn stray(&mut self, rel: RelTag, fork: Fork, start: Lsn, end: Lsn) {
        let blocks = self.model.get(&(rel, fork)).map_or(0, Vec::len) as u32;
        let middle = Lsn(end.0 - 4);
        let blkno = blocks + self.draw.below(2) as u32;
        self.index(rel, fork, blkno, start, middle, false);
        self.sizes.truncate(rel, fork, blocks, end, &mut self.batch.states);
    }

    fn index(&mut self, rel: RelTag, fork: Fork, blkno: u32, start: Lsn, end: Lsn, is_base: bool) {
        let distance = (end.0 - start.0) as u32;
        let (will_init, has_image) =
            if self.draw.below(2) == 0 { (is_base, false) } else { (false, is_base) };
        let key = Key::page(&BlockTag { rel, fork, blkno });
        self.batch.touches.push((key, end, Touch { distance, will_init, has_image }));
    }

    fn freeze(&mut self) {
        let end = Lsn(self.lsn);
        self.open.apply(&mut self.batch, end);
        let bytes = self.open.write_to(Vec::new()).unwrap();
        self.closed.push(LayerFile::open(bytes).unwrap());
        self.open = Arc::new(OpenLayer::new(7, end));
        self.sizes = Sizes::decode(&self.sizes.encode()).unwrap();
        if self.closed.len() > 3 && self.draw.below(2) == 0 {
            let newest: Vec<_> = self.closed.drain(1..).collect();
            let merged = merge(&newest.iter().collect::<Vec<_>>(), Vec::new()).unwrap();
            self.closed.push(LayerFile::open(merged).unwrap());
        }
    }

    fn index_of_all(mut self) -> (Index, Vec<(u64, Forks)>) {
        self.open.apply(&mut self.batch, Lsn(self.lsn));
        let mut layers: Vec<Arc<dyn Run>> = Vec::new();
        for layer in self.closed {
            layer.check().unwrap();
            layers.push(Arc::new(layer));
        }
        layers.push(self.open);
        (Index::new(layers), self.moments)
    }
}

fn base_layer(model: &Forks) -> LayerFile<Vec<u8>> {
    let lsn = Lsn(BASE_LSN);
    let header = Header { system_id: 7, start_lsn: lsn, end_lsn: lsn };
    let mut writer = LayerWriter::new(Vec::new(), &header).unwrap();
    let page = PageBuf::zeroed();
    for ((rel, fork), pages) in model {
        for blkno in 0..pages.len() as u32 {
            let key = Key::page(&BlockTag { rel: *rel, fork: *fork, blkno });
            writer.push(&key, lsn, &Value::Image(PageImage::Plain(page.bytes()))).unwrap();
        }
    }
    for ((rel, fork), pages) in model {
        let size = Size { blocks: pages.len() as u32, ..Size::default() };
        writer.push(&Key::size(*rel, *fork), lsn, &Value::Size(size)).unwrap();
    }
    LayerFile::open(writer.finish().unwrap()).unwrap()
}

/// The history that the index gives for a page.
fn history(index: &Index, key: &Key, at: Lsn) -> Result<History, ReadError> {
    let size = index.size(key, at)?;
    let (chain, origin) = index.chain(key, at, size.as_ref())?;
    let mut history = match origin {
        Some((origin, lsn)) => history(index, &origin, lsn)?,
        None => chain.image.iter().map(|(lsn, _)| lsn.0).collect(),
    };
    history.extend(chain.deltas.iter().map(|delta| delta.end.0));
    Ok(history)
}

fn compare(index: &Index, at: u64, model: &Forks, seed: u64) {
    for db in 1..3 {
        for number in 10..13 {
            for fork in [Fork::Main, Fork::Vm] {
                let rel = RelTag { spc: 1663, db, rel: number };
                let size = index.size(&Key::size(rel, fork), Lsn(at)).unwrap();
                let pages = model.get(&(rel, fork));
                let context = format!("seed={seed} rel={rel} fork={fork:?} at={at:#x}");
                assert_eq!(size.map(|size| size.blocks as usize), pages.map(Vec::len), "{context}");
                for (blkno, expected) in pages.into_iter().flatten().enumerate() {
                    let key = Key::page(&BlockTag { rel, fork, blkno: blkno as u32 });
                    let found = history(index, &key, Lsn(at)).unwrap();
                    assert_eq!(&found, expected, "{context} blk={blkno}");
                }
            }
        }
    }
}

#[test]
fn pages_and_sizes_of_every_moment_are_those_of_the_model() {
    for seed in 1..=40 {
        let mut world = World::new(seed);
        for _ in 0..100 {
            world.step();
        }
        let (index, moments) = world.index_of_all();
        for (at, model) in &moments {
            compare(&index, *at, model, seed);
        }
    }
}

#[test]
fn sizes_come_back_and_no_flipped_bit_or_truncation_goes_unseen() {
    let mut world = World::new(5);
    for _ in 0..120 {
        world.step();
    }
    let bytes = world.sizes.encode();
    assert_eq!(Sizes::decode(&bytes).unwrap(), world.sizes);
    for len in 0..bytes.len() {
        assert!(Sizes::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Sizes::decode(&damaged).is_err(), "bit {bit}");
    }
}
