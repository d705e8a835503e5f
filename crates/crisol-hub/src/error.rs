//! What can go wrong with files, each with its remedy.

use std::io;
use std::path::{Path, PathBuf};

/// A problem with a file or folder.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The operating system refused an operation.
    #[error("cannot {action} {path}: {source}{hint}", path = path.display(), hint = hint(source))]
    Io {
        /// What was tried, as a verb ("read", "write").
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No space left (or the user's quota is used up).
    #[error(
        "the disk is full: cannot write {path}. What was there before is kept. \
         Free some space or choose another folder, then start again.",
        path = path.display()
    )]
    DiskFull {
        /// The file that could not be written whole.
        path: PathBuf,
    },
    /// The folder holds no weights.
    #[error(
        "{path} holds no weights: neither model.safetensors nor pytorch_model.bin is there, nor an index \
         (model.safetensors.index.json, pytorch_model.bin.index.json). \
         Is it a checkpoint folder of Crisol or Hugging Face?",
        path = path.display()
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// The folder to replace holds something that Crisol did not write.
    #[error(
        "{path} exists and was not written by Crisol; it is left as it is. \
         Choose another folder, or remove it if you do not need it.",
        path = path.display()
    )]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// The file is shorter or longer than its header says.
    #[error(
        "{file} is {what}: it has {actual} bytes, its header describes {expected}. \
         Copy or download it again.",
        file = file.display(),
        what = if actual < expected { "truncated" } else { "too long" }
    )]
    WrongLength {
        /// The file.
        file: PathBuf,
        /// Bytes it has.
        actual: u64,
        /// Bytes it should have.
        expected: u64,
    },
    /// The file is not what its name promises.
    #[error("{file} is damaged: {cause}. Copy or download it again.", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Two files of one model hold a tensor of one name.
    #[error(
        "{file} and {other} both hold the tensor `{tensor}`: one of them is stale. Remove the file, or the tensor from \
         it, that the model was not saved with last.",
        file = file.display(),
        other = other.display()
    )]
    StaleTensor {
        /// The file that was opened first.
        file: PathBuf,
        /// The other one.
        other: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "tensor `{tensor}` of {file} holds {value} (value number {index}), so nothing that is computed with it has a \
         meaning. Download it again, or take an earlier checkpoint.",
        file = file.display()
    )]
    NotFinite {
        /// The file or folder.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is no number.
        value: f32,
        /// Where in the tensor, row-major.
        index: usize,
    },
    /// A tensor that the model needs is not there.
    #[error(
        "{file} lacks the tensor `{tensor}`{more}. The weights do not belong to {shape}.",
        file = file.display(),
        more = others(*more),
        shape = shape_of(file)
    )]
    MissingTensor {
        /// The file or folder.
        file: PathBuf,
        /// The first tensor that is missing.
        tensor: String,
        /// How many others are missing.
        more: usize,
    },
    /// There is a tensor that the model has no place for.
    #[error(
        "{file} holds the tensor `{tensor}`{more} that the model does not have. The weights do not belong to {shape}.",
        file = file.display(),
        more = others(*more),
        shape = shape_of(file)
    )]
    SurplusTensor {
        /// The file or folder.
        file: PathBuf,
        /// The first tensor too many.
        tensor: String,
        /// How many others there are.
        more: usize,
    },
    /// A tensor has another shape than the model's.
    #[error(
        "tensor `{tensor}` in {file} has shape {found:?}, but {expected:?} is expected. \
         The weights do not belong to {shape}.",
        file = file.display(),
        shape = shape_of(file)
    )]
    WrongShape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor has an element type that cannot be used.
    #[error(
        "tensor `{tensor}` in {file} has element type {dtype}; \
         F32, F64, BF16, F16, F8_E4M3 and F8_E5M2 are supported. Convert the checkpoint to one of these.",
        file = file.display()
    )]
    WrongType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type in the file.
        dtype: String,
    },
    /// A GGUF file breaks the rules of its format.
    #[error("{file} is not a valid GGUF file: {place}: {cause}. Copy or download it again.", file = file.display())]
    BadGguf {
        /// The file.
        file: PathBuf,
        /// The metadata key, tensor or part of the header, with its byte.
        place: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A GGUF file of a version that is not read.
    #[error(
        "{file} is a GGUF file of {version}; little-endian files of version 2 and 3 are \
         supported. Convert the model again with a current llama.cpp.",
        file = file.display(),
        version = gguf_version(*version)
    )]
    GgufVersion {
        /// The file.
        file: PathBuf,
        /// The version as it was read, little-endian.
        version: u32,
    },
    /// A GGUF file says too little about its model.
    #[error(
        "{file} lacks the metadata key `{key}`. Convert the model again with a current llama.cpp, or take another \
         file of it.",
        file = file.display()
    )]
    MissingKey {
        /// The file.
        file: PathBuf,
        /// The metadata key.
        key: String,
    },
    /// A metadata key of a GGUF file has a value that cannot be used.
    #[error(
        "the metadata key `{key}` in {file} holds {found}, but {expected} is expected. Convert the model \
         again with a current llama.cpp, or take another file of it.",
        file = file.display()
    )]
    WrongKeyType {
        /// The file.
        file: PathBuf,
        /// The metadata key.
        key: String,
        /// What it holds: the type, and the value of a number.
        found: String,
        /// The type it should have.
        expected: &'static str,
    },
    /// A GGUF file has no tensor of this name.
    #[error(
        "{file} lacks the tensor `{tensor}`. The file is of another architecture than its metadata say, or a part \
         of a model that was split: take another file of it.",
        file = file.display()
    )]
    NoSuchTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of a GGUF file is quantised in a way that is not read.
    #[error(
        "tensor `{tensor}` in {file} is stored as {dtype}; {readable} are supported. Take a file of the model that \
         is quantised in one of these ways, such as Q8_0 or Q4_K_M.",
        file = file.display()
    )]
    WrongBlocks {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type in the file.
        dtype: String,
        /// The types that are read.
        readable: &'static str,
    },
    /// A tensor cannot be stored in the type that was asked for.
    #[error("tensor `{tensor}` cannot be written to {file} as {dtype}: {cause}. {remedy}.", file = file.display())]
    CannotStore {
        /// The file that was to be written.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type that was asked for.
        dtype: String,
        /// What is in the way.
        cause: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A PyTorch file that names something that no state dict needs. Python would import it, and could run it.
    #[error(
        "{file} is refused: its pickle asks for `{name}` ({opcode} at byte {at} of data.pkl), which is no part of a \
         state dict. Crisol has run nothing of it, but Python would run what such a file asks for. \
         Use the model's safetensors files, or save its state_dict() alone if you trust where it comes from.",
        file = file.display()
    )]
    RefusedGlobal {
        /// The file.
        file: PathBuf,
        /// What it asks for, as `module.name`.
        name: String,
        /// The opcode that does.
        opcode: &'static str,
        /// Where in the pickle that opcode is.
        at: usize,
    },
    /// A PyTorch file with a pickle opcode that no state dict needs.
    #[error(
        "{file} is refused: its pickle uses {opcode} (at byte {at} of data.pkl), which no state dict needs. \
         Use the model's safetensors files, or save its state_dict() alone if you trust where it comes from.",
        file = file.display()
    )]
    RefusedOpcode {
        /// The file.
        file: PathBuf,
        /// The opcode's name, or its number if it has none.
        opcode: String,
        /// Where in the pickle it is.
        at: usize,
    },
    /// A PyTorch file that holds something else than the weights alone.
    #[error(
        "{file} holds no state dict at its top: {cause}. Save the model's state_dict() alone (with torch.save, or \
         better as safetensors).",
        file = file.display()
    )]
    NotStateDict {
        /// The file.
        file: PathBuf,
        /// What it holds.
        cause: String,
    },
    /// A PyTorch file in the format from before zip files.
    #[error(
        "{file} is in the format that torch.save wrote before PyTorch 1.6 (pickles without a zip around them), which \
         is not supported. Load and save it again with a newer PyTorch, or convert it to safetensors.",
        file = file.display()
    )]
    LegacyTorch {
        /// The file.
        file: PathBuf,
    },
    /// A PyTorch file whose data was compressed, by another program than PyTorch.
    #[error(
        "{file} is a compressed or encrypted zip (its entry `{entry}` is), so its tensors cannot be read where they \
         lie. Save it again with torch.save, which does not compress, or convert it to safetensors.",
        file = file.display()
    )]
    CompressedZip {
        /// The file.
        file: PathBuf,
        /// The first entry that is compressed.
        entry: String,
    },
    /// A PyTorch file from a machine that stores numbers the other way round.
    #[error(
        "{file} was saved on a big-endian machine. Load and save it again on a little-endian one, or convert it to \
         safetensors.",
        file = file.display()
    )]
    BigEndian {
        /// The file.
        file: PathBuf,
    },
    /// A tensor of a PyTorch file that is no proper view of the file's data.
    #[error(
        "tensor `{tensor}` in {file} cannot be read: {cause}. Copy or download the file again; if that does not \
         help, load it in PyTorch and save it with each tensor made contiguous().",
        tensor = tensor.escape_debug(),
        file = file.display()
    )]
    BadLayout {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with its place in the data.
        cause: String,
    },
    /// The scales of an FP8 weight do not go with its shape.
    #[error(
        "tensor `{tensor}` in {file} has shape {found:?}, which is not one scale for each block of {} × {} of its \
         FP8 weight of shape {weight:?}. Convert the checkpoint to BF16.",
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
        /// The shape of the weight that it belongs to.
        weight: Box<[usize]>,
        /// Rows and columns of a block.
        block: [usize; 2],
    },
}

impl HubError {
    /// The error for a failed file operation: [`HubError::DiskFull`] where that is the cause.
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

/// A big-endian file has its version's bytes at the other end.
fn gguf_version(version: u32) -> String {
    let swapped = version.swap_bytes();
    if swapped < version {
        format!("version {swapped}, big-endian")
    } else {
        format!("version {version}")
    }
}

/// What says which tensors there should be.
fn shape_of(file: &Path) -> &'static str {
    if file.extension().is_some_and(|end| end == "gguf") {
        "the file's metadata"
    } else {
        "this config.json"
    }
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (and {more} others)") }
}
