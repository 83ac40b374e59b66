//! Full-page images, and pages as layers store them.

use walcore::layer::PageImage;
use walcore::reader::Reader;
use walcore::wal::Image;

use crate::START;

/// Bytes: `bimg_info` (1), where the hole starts (2), how long it is (2), then the image.
///
/// # Panics
/// If an error does not name its place.
pub fn image(input: &[u8]) {
    let mut r = Reader(input);
    let (Some(info), Some(hole_offset), Some(hole_length)) = (r.u8(), r.u16(), r.u16()) else { return };
    let image = Image { bytes: r.0, hole_offset, hole_length, info };
    if let Err(error) = image.restore(START, 3) {
        assert!(error.to_string().contains("lsn=0/40000000 block=3"), "{error}");
    }
    let _ = PageImage::Lz4(r.0).restore();
    let _ = PageImage::Plain(r.0).restore();
}
