//! Several layers made one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};

use super::LayerError;
use super::block::{Entry, POSITION_LEN, encode_position};
use super::file::{Header, LayerFile, Scan};
use super::key::Key;
use super::value::{DeltaCount, Value};
use super::writer::LayerWriter;
use crate::Lsn;

/// What can go wrong when layers are merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// An input is damaged.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The output cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes everything that is in `layers`, oldest first, as one layer; returns what it wrote to, for the caller to sync.
///
/// Where two have the same key and LSN, a page image wins over a pointer to the record that made it, and else the
/// newer layer.
///
/// # Errors
/// Damage of an input; what `out` fails with.
pub fn merge<B: AsRef<[u8]>, W: Write>(layers: &[&LayerFile<B>], out: W) -> Result<W, MergeError> {
    let headers = || layers.iter().map(|layer| layer.header());
    let header = Header {
        system_id: headers().map(|h| h.system_id).max().unwrap_or_default(),
        start_lsn: headers().map(|h| h.start_lsn).min().unwrap_or_default(),
        end_lsn: headers().map(|h| h.end_lsn).max().unwrap_or_default(),
    };
    let mut writer = LayerWriter::new(out, &header)?;
    let mut inputs = Inputs::new(layers)?;
    let mut history: Vec<(Lsn, Value<'_>)> = Vec::new();
    let mut current: Option<Key> = None;
    while let Some(entry) = inputs.next()? {
        if current != Some(entry.key) {
            write_history(&mut writer, current, &mut history)?;
            current = Some(entry.key);
        }
        match history.last_mut() {
            Some((lsn, value)) if *lsn == entry.lsn => {
                if matches!(entry.value, Value::Image(_)) {
                    *value = entry.value;
                }
            }
            _ => history.push((entry.lsn, entry.value)),
        }
    }
    write_history(&mut writer, current, &mut history)?;
    Ok(writer.finish()?)
}

/// Writes the values of one key, newest first, with a new count at the front.
fn write_history<W: Write>(
    writer: &mut LayerWriter<W>,
    key: Option<Key>,
    history: &mut Vec<(Lsn, Value<'_>)>,
) -> io::Result<()> {
    let Some(key) = key else { return Ok(()) };
    let mut count = Some(delta_count(history));
    for (lsn, value) in history.drain(..) {
        let count = count.take();
        match value {
            Value::Wal(touch, _) => writer.push(&key, lsn, &Value::Wal(touch, count))?,
            Value::Record(touch, _, bytes) => writer.push(&key, lsn, &Value::Record(touch, count, bytes))?,
            other => writer.push(&key, lsn, &other)?,
        }
    }
    Ok(())
}

fn delta_count(newest_first: &[(Lsn, Value<'_>)]) -> DeltaCount {
    let mut count = DeltaCount::default();
    for (_, value) in newest_first {
        match value {
            Value::Wal(touch, _) | Value::Record(touch, ..) if !touch.is_base() => {
                count.push(false, touch.distance.into());
            }
            _ => {
                count.based = true;
                break;
            }
        }
    }
    count
}

/// The entries of all inputs in one order; of equal positions, the newer layer's first.
struct Inputs<'a, B> {
    scans: Vec<(Scan<'a, B>, Option<Entry<'a>>)>,
    heads: BinaryHeap<Reverse<([u8; POSITION_LEN], Reverse<usize>)>>,
}

impl<'a, B: AsRef<[u8]>> Inputs<'a, B> {
    fn new(layers: &[&'a LayerFile<B>]) -> Result<Self, LayerError> {
        let scans = layers.iter().map(|layer| (layer.scan_all(), None)).collect();
        let mut inputs = Self { scans, heads: BinaryHeap::new() };
        for number in 0..layers.len() {
            inputs.advance(number)?;
        }
        Ok(inputs)
    }

    fn advance(&mut self, number: usize) -> Result<Option<Entry<'a>>, LayerError> {
        let Some((scan, head)) = self.scans.get_mut(number) else { return Ok(None) };
        let next = scan.next().transpose()?;
        if let Some(entry) = &next {
            self.heads.push(Reverse((encode_position(&entry.key, entry.lsn), Reverse(number))));
        }
        Ok(std::mem::replace(head, next))
    }

    fn next(&mut self) -> Result<Option<Entry<'a>>, LayerError> {
        match self.heads.pop() {
            Some(Reverse((_, Reverse(number)))) => self.advance(number),
            None => Ok(None),
        }
    }
}
