//! Errors of files and folders, each with a remedy.

use std::io;
use std::path::{Path, PathBuf};

/// A problem with a file or folder.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}{hint}", path = path.display(), hint = hint(source))]
    Io {
        /// The operation as a verb ("read", "write").
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The disk or the user's quota is full.
    #[error(
        "the disk is full: cannot write {path}. The previous version is kept. \
         Free some space or choose another folder, then start again.",
        path = path.display()
    )]
    DiskFull {
        /// The file that could not be completed.
        path: PathBuf,
    },
    /// The folder has no weights.
    #[error(
        "{path} holds no weights: it has neither model.safetensors nor pytorch_model.bin, nor an \
         index (model.safetensors.index.json, pytorch_model.bin.index.json). \
         Give a checkpoint folder of Crisol or Hugging Face.",
        path = path.display()
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// The folder to replace has files that Crisol did not write.
    #[error(
        "{path} exists and was not written by Crisol; it is left as it is. \
         Choose another folder, or remove it if you do not need it.",
        path = path.display()
    )]
    ForeignFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The length of a file contradicts its header.
    #[error(
        "{file} is {what}: it has {actual} bytes, its header describes {expected}. \
         Copy or download it again.",
        file = file.display(),
        what = if actual < expected { "truncated" } else { "too long" }
    )]
    WrongLength {
        /// The file.
        file: PathBuf,
        /// Its size in bytes.
        actual: u64,
        /// The size according to its header.
        expected: u64,
    },
    /// A file does not have the format that its name promises.
    #[error("{file} is damaged: {cause}. Copy or download it again.", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Two files of a model contain a tensor of the same name.
    #[error(
        "{file} and {other} both hold the tensor `{tensor}`, so one of them is stale. \
         Remove the older file, or the tensor from it.",
        file = file.display(),
        other = other.display()
    )]
    StaleTensor {
        /// The file that was opened first.
        file: PathBuf,
        /// The file opened later.
        other: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "tensor `{tensor}` of {file} holds {value} (value number {index}), which makes every \
         result meaningless. Download it again, or take an earlier checkpoint.",
        file = file.display()
    )]
    NotFinite {
        /// The file or folder.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
        /// Its row-major index in the tensor.
        index: usize,
    },
    /// A tensor of the model is missing.
    #[error(
        "{file} lacks the tensor `{tensor}`{more}. The weights do not belong to {shape}.",
        file = file.display(),
        more = others(*more),
        shape = shape_source(file)
    )]
    MissingTensor {
        /// The file or folder.
        file: PathBuf,
        /// The first missing tensor.
        tensor: String,
        /// Number of other missing tensors.
        more: usize,
    },
    /// The files contain a tensor that the model does not have.
    #[error(
        "{file} holds the tensor `{tensor}`{more} that the model does not have. \
         The weights do not belong to {shape}.",
        file = file.display(),
        more = others(*more),
        shape = shape_source(file)
    )]
    SurplusTensor {
        /// The file or folder.
        file: PathBuf,
        /// The first surplus tensor.
        tensor: String,
        /// Number of other surplus tensors.
        more: usize,
    },
    /// A tensor's shape differs from the model's.
    #[error(
        "tensor `{tensor}` in {file} has shape {found:?}, but {expected:?} is expected. \
         The weights do not belong to {shape}.",
        file = file.display(),
        shape = shape_source(file)
    )]
    WrongShape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape in the model.
        expected: Vec<usize>,
    },
    /// A tensor has an unsupported element type.
    #[error(
        "tensor `{tensor}` in {file} has element type {dtype}; F32, F64, BF16, F16, F8_E4M3 and \
         F8_E5M2 are supported. Convert the checkpoint to one of these.",
        file = file.display()
    )]
    UnsupportedDtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type in the file.
        dtype: String,
    },
    /// A GGUF file violates its format.
    #[error(
        "{file} is not a valid GGUF file: {place}: {cause}. Copy or download it again.",
        file = file.display()
    )]
    InvalidGguf {
        /// The file.
        file: PathBuf,
        /// The metadata key, tensor or part of the header, with its byte offset.
        place: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A GGUF file ends within its header.
    #[error(
        "{file} is truncated: it has {actual} bytes, but its {place} needs at least {expected}. \
         Copy or download it again.",
        file = file.display()
    )]
    TruncatedGguf {
        /// The file.
        file: PathBuf,
        /// The metadata key, tensor or part of the header, with its byte offset.
        place: String,
        /// Its size in bytes.
        actual: u64,
        /// The least size in bytes with what is read at this place.
        expected: u64,
    },
    /// A GGUF file has an unsupported version.
    #[error(
        "{file} is a GGUF file of {version}; little-endian files of version 2 and 3 are \
         supported. Convert the model again with a current llama.cpp.",
        file = file.display(),
        version = gguf_version(*version)
    )]
    GgufVersion {
        /// The file.
        file: PathBuf,
        /// The version, decoded as little-endian.
        version: u32,
    },
    /// A GGUF file lacks a required metadata key.
    #[error(
        "{file} lacks the metadata key `{key}`. Convert the model again with a current llama.cpp, \
         or take another file of it.",
        file = file.display()
    )]
    MissingKey {
        /// The file.
        file: PathBuf,
        /// The metadata key.
        key: String,
    },
    /// A metadata key of a GGUF file has a value of an unusable type.
    #[error(
        "the metadata key `{key}` in {file} holds {found}, but {expected} is expected. \
         Convert the model again with a current llama.cpp, or take another file of it.",
        file = file.display()
    )]
    WrongKeyType {
        /// The file.
        file: PathBuf,
        /// The metadata key.
        key: String,
        /// Its type, and the value if it is a number.
        found: String,
        /// The required type.
        expected: &'static str,
    },
    /// A GGUF file has no tensor of this name.
    #[error(
        "{file} lacks the tensor `{tensor}`. Its metadata name the wrong architecture, or it is \
         one part of a split model. Take another file of the model.",
        file = file.display()
    )]
    NoSuchTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of a GGUF file has an unsupported quantisation.
    #[error(
        "tensor `{tensor}` in {file} has type {dtype}; {supported} are supported. \
         Take a file of the model in one of these types, such as Q8_0 or Q4_K_M.",
        file = file.display()
    )]
    UnsupportedQuantisation {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type in the file.
        dtype: String,
        /// The supported types.
        supported: &'static str,
    },
    /// A tensor cannot be encoded in the requested type.
    #[error(
        "tensor `{tensor}` cannot be written to {file} as {dtype}: {cause}. {remedy}.",
        file = file.display()
    )]
    CannotEncode {
        /// The file to write.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The requested type.
        dtype: String,
        /// The obstacle.
        cause: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// A PyTorch file references a Python name that no state dict needs. Python would import it.
    #[error(
        "{file} is refused: its pickle asks for `{name}` ({opcode} at byte {at} of data.pkl), \
         which no state dict needs. Python would run it; Crisol has not. \
         Use the model's safetensors files, or save its state_dict() alone if you trust \
         its origin.",
        file = file.display()
    )]
    RefusedGlobal {
        /// The file.
        file: PathBuf,
        /// The name, as `module.name`.
        name: String,
        /// The opcode that references it.
        opcode: &'static str,
        /// Offset of the opcode in the pickle, in bytes.
        at: usize,
    },
    /// A PyTorch file uses a pickle opcode that no state dict needs.
    #[error(
        "{file} is refused: its pickle uses {opcode} (at byte {at} of data.pkl), which no state \
         dict needs. Use the model's safetensors files, or save its state_dict() alone if you \
         trust its origin.",
        file = file.display()
    )]
    RefusedOpcode {
        /// The file.
        file: PathBuf,
        /// The opcode's name, or its number if it has none.
        opcode: String,
        /// Offset of the opcode in the pickle, in bytes.
        at: usize,
    },
    /// A PyTorch file contains something other than a state dict.
    #[error(
        "{file} is not a state dict: {cause}. Save the model's state_dict() alone \
         (with torch.save, or better as safetensors).",
        file = file.display()
    )]
    NotStateDict {
        /// The file.
        file: PathBuf,
        /// What it contains.
        cause: String,
    },
    /// A PyTorch file in the format of PyTorch before 1.6.
    #[error(
        "{file} has the format of torch.save before PyTorch 1.6 (pickles without a zip), which is \
         not supported. Load and save it with a newer PyTorch, or convert it to safetensors.",
        file = file.display()
    )]
    LegacyTorch {
        /// The file.
        file: PathBuf,
    },
    /// A PyTorch file that another program compressed or encrypted.
    #[error(
        "{file} is a compressed or encrypted zip (entry `{entry}`), so its tensors cannot be \
         memory-mapped. Save it again with torch.save, or convert it to safetensors.",
        file = file.display()
    )]
    CompressedZip {
        /// The file.
        file: PathBuf,
        /// The first entry that is compressed.
        entry: String,
    },
    /// A PyTorch file from a big-endian machine.
    #[error(
        "{file} was saved on a big-endian machine. Load and save it again on a little-endian one, \
         or convert it to safetensors.",
        file = file.display()
    )]
    BigEndian {
        /// The file.
        file: PathBuf,
    },
    /// A tensor of a PyTorch file is not a valid view of the file's data.
    #[error(
        "tensor `{tensor}` in {file} cannot be read: {cause}. Copy or download the file again. \
         If that does not help, save each tensor with contiguous() in PyTorch.",
        tensor = tensor.escape_debug(),
        file = file.display()
    )]
    InvalidView {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with the view.
        cause: String,
    },
    /// The scales of an FP8 weight do not match its shape.
    #[error(
        "tensor `{tensor}` in {file} has shape {found:?}, which is not one scale for each {} × {} \
         block of its FP8 weight of shape {weight:?}. Convert the checkpoint to BF16.",
        block[0], block[1],
        file = file.display()
    )]
    WrongScale {
        /// The file.
        file: PathBuf,
        /// The tensor of scales.
        tensor: String,
        /// Its shape in the file.
        found: Box<[usize]>,
        /// The shape of the weight.
        weight: Box<[usize]>,
        /// Rows and columns of a block.
        block: [usize; 2],
    },
}

impl HubError {
    /// A failed file operation; [`HubError::DiskFull`] if that is the cause.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> HubError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                HubError::DiskFull { path }
            }
            _ => HubError::Io { action, path, source },
        }
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => ". Check the path.",
        io::ErrorKind::PermissionDenied => ". Check who owns it and its permissions.",
        _ => "",
    }
}

/// In a big-endian file the version is byte-swapped.
fn gguf_version(version: u32) -> String {
    let swapped = version.swap_bytes();
    if swapped < version {
        format!("version {swapped}, big-endian")
    } else {
        format!("version {version}")
    }
}

/// The source of the expected names and shapes.
fn shape_source(file: &Path) -> &'static str {
    if file.extension().is_some_and(|end| end == "gguf") {
        "the file's metadata; take another file of the model"
    } else {
        "this config.json; take both from the same model"
    }
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (and {more} others)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_operation_says_what_to_look_at() {
        let said = |kind: io::ErrorKind| {
            let text = HubError::io("read", Path::new("a.bin"), kind.into()).to_string();
            text.split_once(". ").map(|(_, hint)| hint.to_owned())
        };
        assert_eq!(said(io::ErrorKind::NotFound).as_deref(), Some("Check the path."));
        let permissions = said(io::ErrorKind::PermissionDenied);
        assert_eq!(permissions.as_deref(), Some("Check who owns it and its permissions."));
        assert_eq!(said(io::ErrorKind::TimedOut), None);
    }
}
