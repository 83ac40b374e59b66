//! What ingest must know of everything before, to go on from an LSN.

use super::Sizes;
use crate::layer::LayerError;
use crate::reader::Reader;
use crate::state::Control;

/// First bytes of a stored state.
const MAGIC: [u8; 8] = *b"PGSSTATE";
/// The version written and read here.
const VERSION: u32 = 1;
const WHAT: &str = "state of ingest";

/// The state of a timeline at one LSN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Sizes of all forks.
    pub sizes: Sizes,
    /// Counters, settings and origins; without them they are not followed, nor are commit timestamps.
    pub control: Option<Control>,
}

impl State {
    /// In bytes.
    ///
    /// ```text
    /// | magic 8 | version u32 | length of sizes u64 | sizes | control, if known | crc u32 |
    /// ```
    ///
    /// Little-endian; the CRC-32C is of everything before it.
    pub fn encode(&self) -> Vec<u8> {
        let sizes = self.sizes.encode();
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((sizes.len() as u64).to_le_bytes());
        out.extend(sizes);
        out.extend(self.control.iter().flat_map(Control::encode));
        let crc = crc32c::crc32c(&out);
        out.extend(crc.to_le_bytes());
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// `Truncated`, `Unknown`, `Checksum` or `Malformed`.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayerError> {
        let offset = bytes.len() as u64;
        let truncated = LayerError::Truncated { what: WHAT, offset };
        let (body, stored) = bytes.split_last_chunk::<4>().ok_or(truncated.clone())?;
        let mut r = Reader(body);
        let magic = r.array().ok_or(truncated.clone())?;
        if magic != MAGIC {
            return Err(LayerError::Unknown { field: "magic", value: u64::from_le_bytes(magic) });
        }
        let (stored, found) = (u32::from_le_bytes(*stored), crc32c::crc32c(body));
        if stored != found {
            return Err(LayerError::Checksum { what: WHAT, offset: 0, stored, found });
        }
        let version = r.u32().ok_or(truncated.clone())?;
        if version != VERSION {
            return Err(LayerError::Unknown { field: "version", value: version.into() });
        }
        let malformed = LayerError::Malformed { what: WHAT, offset: 0 };
        let len = r.u64().and_then(|n| usize::try_from(n).ok());
        let sizes = Sizes::decode(len.and_then(|n| r.bytes(n)).ok_or(malformed.clone())?)?;
        let control = match r.left() {
            0 => None,
            _ => Some(Control::decode(&mut r).filter(|_| r.left() == 0).ok_or(malformed)?),
        };
        Ok(Self { sizes, control })
    }
}
