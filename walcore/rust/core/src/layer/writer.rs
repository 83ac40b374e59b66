//! Layer files: writing.

use std::io::{self, Write};

use super::block::{BlockBuilder, POSITION_LEN, encode_position};
use super::file::{Footer, HEADER_LEN, Header, INDEX_ENTRY_LEN, put_crc};
use super::key::Key;
use super::value::Value;
use crate::Lsn;

/// A block is closed once it is this long. With an image in it, it can be a page longer.
const BLOCK_LEN: usize = 12 * 1024;

/// Writes a layer file from entries that come in order. The file is not complete before [`Self::finish`].
#[derive(Debug)]
pub struct LayerWriter<W> {
    out: W,
    offset: u64,
    block: BlockBuilder,
    index: Vec<u8>,
    entries: u64,
    first: Option<Key>,
    last: Option<[u8; POSITION_LEN]>,
    last_key: Option<Key>,
}

impl<W: Write> LayerWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn new(mut out: W, header: &Header) -> io::Result<Self> {
        out.write_all(&header.encode())?;
        Ok(Self {
            out,
            offset: HEADER_LEN as u64,
            block: BlockBuilder::default(),
            index: Vec::new(),
            entries: 0,
            first: None,
            last: None,
            last_key: None,
        })
    }

    /// Appends an entry: keys ascending, newest first within one.
    ///
    /// # Errors
    /// What `out` fails with; `InvalidInput` if the entry is out of order.
    pub fn push(&mut self, key: &Key, lsn: Lsn, value: &Value<'_>) -> io::Result<()> {
        let position = encode_position(key, lsn);
        if self.last.is_some_and(|last| last >= position) {
            let message = format!("layer entries out of order: key={key} lsn={lsn}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        if self.block.is_empty() {
            self.index.extend_from_slice(&position);
        }
        self.block.push(&position, value);
        self.entries += 1;
        self.first.get_or_insert(*key);
        self.last = Some(position);
        self.last_key = Some(*key);
        if self.block.len() >= BLOCK_LEN { self.close_block() } else { Ok(()) }
    }

    /// Writes index and footer. Returns what it wrote to, for the caller to sync.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.close_block()?;
        }
        let footer = Footer {
            index_offset: self.offset,
            blocks: (self.index.len() / INDEX_ENTRY_LEN) as u64,
            entries: self.entries,
            keys: self.first.zip(self.last_key),
        };
        put_crc(&mut self.index, 0);
        self.out.write_all(&self.index)?;
        self.out.write_all(&footer.encode())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn close_block(&mut self) -> io::Result<()> {
        let mut block = self.block.take();
        put_crc(&mut block, 0);
        self.index.extend_from_slice(&self.offset.to_le_bytes());
        self.index.extend_from_slice(&(block.len() as u32).to_le_bytes());
        self.out.write_all(&block)?;
        self.offset += block.len() as u64;
        Ok(())
    }
}
