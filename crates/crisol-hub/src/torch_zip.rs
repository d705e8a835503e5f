//! PyTorch's files (`pytorch_model.bin`): a zip that holds a pickle, `NAME/data.pkl`, which describes the tensors, and
//! their data, `NAME/data/KEY`, uncompressed, so that it can be read where it lies.
//!
//! The checksums of the zip are not looked at: PyTorch can be told not to write them, and the weights of a large model
//! would be read twice.

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

/// How every zip with something in it begins.
const ZIP: &[u8] = b"PK\x03\x04";

/// A pickle of protocol 2 to 5 begins so (then the protocol); what `torch.save` wrote before PyTorch 1.6 is a sequence
/// of them.
const PICKLE: u8 = 0x80;

/// How many times as large as the file its tensors may be together. Some share their data, as an output matrix does with the
/// embedding, but each takes memory of its own once it is read.
const MAX_SHARED: usize = 4;

/// A tensor and where its data lies in the file.
pub(crate) struct TorchTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// In elements; `None` if the elements lie one after the other.
    pub(crate) strides: Option<Vec<usize>>,
    /// What the tensor reaches over, from its first element to its last.
    pub(crate) bytes: Range<usize>,
}

/// The tensors of a file with these contents, sorted by name. Their `bytes` are within it.
pub(crate) fn read_header(path: &Path, contents: &[u8]) -> Result<Vec<TorchTensor>, HubError> {
    let file = path.to_owned();
    if !contents.starts_with(ZIP) {
        return Err(if contents.first() == Some(&PICKLE) {
            HubError::LegacyTorch { file }
        } else {
            HubError::Damaged {
                file,
                cause: "it is not a file that torch.save wrote (no zip)".into(),
            }
        });
    }
    let entries = entries(path, contents)?;
    let mut pickles = entries.iter().filter_map(|(name, place)| {
        let prefix = name.strip_suffix("data.pkl")?;
        (prefix.is_empty() || prefix.ends_with('/')).then_some((prefix, place))
    });
    let (Some((prefix, place)), None) = (pickles.next(), pickles.next()) else {
        let cause =
            "it is a zip, but not one that torch.save wrote (it should hold one data.pkl)".into();
        return Err(HubError::Damaged { file, cause });
    };
    // Files older than PyTorch 2.0 do not say; they come from little-endian machines.
    if let Some(order) = entries.get(&format!("{prefix}byteorder"))
        && contents[order.clone()] != *b"little"
    {
        return Err(HubError::BigEndian { file });
    }
    let views =
        pickle::state_dict(&contents[place.clone()]).map_err(|error| refused(path, error))?;
    let mut tensors = Vec::with_capacity(views.len());
    let mut claimed = 0_usize;
    for (name, view) in views {
        let bad = |cause| HubError::BadLayout { file: path.to_owned(), tensor: name.into(), cause };
        let storage = entries.get(&format!("{prefix}data/{}", view.storage.key));
        let bytes = place_of(&view, storage).map_err(bad)?;
        let TensorView { dtype, shape, strides, .. } = view;
        // No overflow: no more elements than the place has.
        claimed = claimed.saturating_add(shape.iter().product::<usize>() * dtype.bitsize() / 8);
        if claimed / MAX_SHARED > contents.len() {
            let length = contents.len();
            return Err(bad(format!(
                "it and those before it share so much of their data that they are {claimed} bytes in a file of {length}"
            )));
        }
        let strides = (!strides::contiguous(&shape, &strides)).then_some(strides);
        tensors.push(TorchTensor { name: name.into(), dtype, shape, strides, bytes });
    }
    Ok(tensors)
}

/// What the zip holds, by name; every range is within `contents`.
fn entries(path: &Path, contents: &[u8]) -> Result<BTreeMap<String, Range<usize>>, HubError> {
    let damaged = |cause: String| HubError::Damaged { file: path.to_owned(), cause };
    // Its directory is at the end, so this is what a truncated file runs into.
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
        let place = entry.data_start().and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= contents.len()).then_some(start..end)
        });
        let place = place.ok_or_else(|| {
            damaged(format!(
                "the entry `{}` of its zip ends behind the file's end",
                name.escape_debug()
            ))
        })?;
        entries.insert(name.to_owned(), place);
    }
    Ok(entries)
}

/// Where a view's elements are, if its storage holds all of them.
fn place_of(view: &TensorView<'_>, storage: Option<&Range<usize>>) -> Result<Range<usize>, String> {
    let storage = storage.ok_or_else(|| "its data is not in the file".to_owned())?;
    let size = view.dtype.bitsize() / 8;
    let available = storage.len() / size;
    if available < view.storage.elements {
        let claimed = view.storage.elements;
        return Err(format!("its storage should have {claimed} elements and has {available}"));
    }
    let reach = strides::reach(&view.shape, &view.strides)?;
    match view.offset.checked_add(reach) {
        _ if reach == 0 => Ok(storage.start..storage.start),
        // No overflow: the storage's bytes are in the file.
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

    /// Whatever is described must be in the file, and be readable.
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
