//! What can be wrong with a layer file.

/// A reason why bytes are not the layer that was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The file is too short to be whole.
    #[error("layer is truncated: what={what} offset={offset}")]
    Truncated {
        /// Which part.
        what: &'static str,
        /// Where it should start.
        offset: u64,
    },
    /// Not a layer file, or of a version that is not known here.
    #[error("not a layer file of a known version: field={field} value={value:X}")]
    Unknown {
        /// Magic or version.
        field: &'static str,
        /// The value found.
        value: u64,
    },
    /// A checksum does not match.
    #[error("layer checksum mismatch: what={what} offset={offset} stored={stored:08X} found={found:08X}")]
    Checksum {
        /// Which part.
        what: &'static str,
        /// Where it starts.
        offset: u64,
        /// The checksum in the file.
        stored: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// The checksum holds, the content cannot be: written wrong.
    #[error("impossible content of a layer: what={what} offset={offset}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// Where it starts, in the file or the block.
        offset: u64,
    },
}
