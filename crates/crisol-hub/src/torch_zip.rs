//! PyTorch's files (`pytorch_model.bin`): an uncompressed zip, so data can be memory-mapped.
//!
//! ```text
//! NAME/data.pkl     pickle that describes the tensors
//! NAME/data/KEY     data of one storage
//! NAME/byteorder    "little" or "big" (PyTorch 2.0 and later)
//! ```
//!
//! Zip checksums are not verified: PyTorch can omit them, and verification would read all weights
//! twice.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use crate::HubError;
use crate::pickle::{self, PickleError, TensorView};
use crate::strides;

/// Magic of a non-empty zip.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// First byte of a pickle of protocol 2 to 5. Before PyTorch 1.6, `torch.save` wrote pickles
/// without a zip.
const PICKLE_MAGIC: u8 = 0x80;

/// Maximum total size of the tensors as a multiple of the file size. Tensors can share data, as a
/// tied head does, but each takes its own memory once read.
const MAX_EXPANSION: usize = 4;

/// A tensor and the range of its data in the file.
pub(crate) struct TorchTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Strides in elements; `None` if contiguous.
    pub(crate) strides: Option<Vec<usize>>,
    /// The span of the tensor, from its first to its last element.
    pub(crate) bytes: Range<usize>,
}

/// The tensors of a file, sorted by name. Their `bytes` are within `contents`.
pub(crate) fn read_header(path: &Path, contents: &[u8]) -> Result<Vec<TorchTensor>, HubError> {
    let file = path.to_owned();
    if !contents.starts_with(ZIP_MAGIC) {
        return Err(if contents.first() == Some(&PICKLE_MAGIC) {
            HubError::LegacyTorch { file }
        } else {
            HubError::Damaged {
                file,
                cause: "it is not a file that torch.save wrote (no zip)".into(),
            }
        });
    }
    let entries = entries(path, contents)?;
    let mut pickles = entries.iter().filter_map(|(name, range)| {
        let prefix = name.strip_suffix("data.pkl")?;
        (prefix.is_empty() || prefix.ends_with('/')).then_some((prefix, range))
    });
    let (Some((prefix, range)), None) = (pickles.next(), pickles.next()) else {
        let cause =
            "it is a zip, but not one that torch.save wrote (it should hold one data.pkl)".into();
        return Err(HubError::Damaged { file, cause });
    };
    // PyTorch before 2.0 does not write the byte order; such files are little-endian.
    if let Some(order) = entries.get(&format!("{prefix}byteorder"))
        && contents[order.clone()] != *b"little"
    {
        return Err(HubError::BigEndian { file });
    }
    let views =
        pickle::state_dict(&contents[range.clone()]).map_err(|error| refused(path, error))?;
    let mut tensors = Vec::with_capacity(views.len());
    let mut claimed = 0_usize;
    for (name, view) in views {
        let invalid =
            |cause| HubError::InvalidView { file: path.to_owned(), tensor: name.into(), cause };
        let storage = entries.get(&format!("{prefix}data/{}", view.storage.key));
        let bytes = data_range(&view, storage).map_err(invalid)?;
        let TensorView { dtype, shape, strides, .. } = view;
        // Cannot overflow: the elements fit the storage.
        claimed = claimed.saturating_add(shape.iter().product::<usize>() * dtype.bitsize() / 8);
        if claimed / MAX_EXPANSION > contents.len() {
            let length = contents.len();
            return Err(invalid(format!(
                "it and the tensors before it share so much data that they would take {claimed} \
                 bytes, from a file of {length}"
            )));
        }
        let strides = (!strides::is_contiguous(&shape, &strides)).then_some(strides);
        tensors.push(TorchTensor { name: name.into(), dtype, shape, strides, bytes });
    }
    Ok(tensors)
}

/// The entries of the zip by name; every range is within `contents`.
fn entries(path: &Path, contents: &[u8]) -> Result<BTreeMap<String, Range<usize>>, HubError> {
    let damaged = |cause: String| HubError::Damaged { file: path.to_owned(), cause };
    // The directory is at the end of the file, so truncation shows here.
    let unreadable = |e: zip::result::ZipError| {
        damaged(format!("its zip directory cannot be read, so it may be truncated ({e})"))
    };
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, Cursor::new(contents)).map_err(unreadable)?;
    let mut entries = BTreeMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(unreadable)?;
        let name = str::from_utf8(entry.name_raw())
            .map_err(|_| damaged("the name of an entry of its zip is not UTF-8".into()))?;
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(HubError::CompressedZip {
                file: path.to_owned(),
                entry: name.escape_debug().to_string(),
            });
        }
        let range = entry.data_start().and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= contents.len()).then_some(start..end)
        });
        let range = range.ok_or_else(|| {
            damaged(format!(
                "the entry `{}` of its zip ends beyond the end of the file",
                name.escape_debug()
            ))
        })?;
        entries.insert(name.to_owned(), range);
    }
    Ok(entries)
}

/// The byte range of a view, if its storage holds all of it.
fn data_range(
    view: &TensorView<'_>,
    storage: Option<&Range<usize>>,
) -> Result<Range<usize>, String> {
    let storage = storage.ok_or_else(|| "its data is not in the file".to_owned())?;
    let size = view.dtype.bitsize() / 8;
    let available = storage.len() / size;
    if available < view.storage.elements {
        let claimed = view.storage.elements;
        return Err(format!("its storage should have {claimed} elements and has {available}"));
    }
    let span = strides::span(&view.shape, &view.strides)?;
    match view.offset.checked_add(span) {
        _ if span == 0 => Ok(storage.start..storage.start),
        // Cannot overflow: the storage is within the file.
        Some(end) if end <= view.storage.elements => {
            Ok(storage.start + view.offset * size..storage.start + end * size)
        }
        _ => Err(format!(
            "shape {:?} with strides {:?} from element {} does not fit its storage of {}",
            view.shape, view.strides, view.offset, view.storage.elements
        )),
    }
}

fn refused(path: &Path, error: PickleError) -> HubError {
    let file = path.to_owned();
    match error {
        PickleError::Global { name, opcode, at } => {
            HubError::RefusedGlobal { file, name, opcode, at }
        }
        PickleError::Opcode { opcode, at } => HubError::RefusedOpcode { file, opcode, at },
        PickleError::NotStateDict(cause) => HubError::NotStateDict { file, cause },
        PickleError::Malformed { at, cause } => HubError::Damaged {
            file,
            cause: format!("its pickle is not sound: {cause} (at byte {at} of data.pkl)"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name))
            .expect("a golden file")
    }

    /// Every described tensor must be in the file and readable.
    fn check(contents: &[u8]) -> Result<(), HubError> {
        for tensor in read_header(Path::new("x.bin"), contents)? {
            let elements: usize = tensor.shape.iter().product();
            let (bytes, size) = (&contents[tensor.bytes], tensor.dtype.bitsize() / 8);
            let read = match tensor.strides {
                None => bytes.len(),
                Some(strides) => strides::gather(bytes, size, &tensor.shape, &strides).len(),
            };
            assert_eq!(read, elements * size);
        }
        Ok(())
    }

    #[test]
    fn every_truncation_is_an_error() {
        for file in ["plain/pytorch_model.bin", "views-2.bin", "views-5.bin", "legacy.bin"] {
            let bytes = golden(file);
            for length in 0..bytes.len() {
                assert!(check(&bytes[..length]).is_err(), "{file} cut at {length}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_gives_an_answer() {
        for file in ["plain/pytorch_model.bin", "views-2.bin", "views-5.bin", "hostile-4.bin"] {
            let mut bytes = golden(file);
            assert_eq!(check(&bytes).is_ok(), file != "hostile-4.bin");
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    bytes[at] ^= 1 << bit;
                    let _ = check(&bytes);
                    bytes[at] ^= 1 << bit;
                }
            }
        }
    }
}
