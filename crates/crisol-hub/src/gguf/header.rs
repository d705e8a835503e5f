//! Parses and validates everything before the data of a GGUF file.
//!
//! ```text
//! little-endian:
//!   "GGUF", version u32, tensor count u64, key count u64
//!   per key:     name string, type u32, value
//!   per tensor:  name string, dimension count u32, dimensions u64 (fastest first),
//!                type u32, offset in the data u64
//!   padding to the alignment, data
//!
//! string: length u64, UTF-8        array: type u32, length u64, items
//! ```
//!
//! Versions 2 and 3 are equal for little-endian files. Source: `docs/gguf.md` of ggml.
//!
//! Every count is compared with the remaining bytes before allocation, so memory use is
//! proportional to the size of the file.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use super::metadata::{Array, Metadata, Value, ValueType};
use super::{ALIGNMENT, ALIGNMENT_KEY, GgmlType, MAGIC, MAX_DIMS, quoted};
use crate::HubError;

/// Maximum nesting of arrays; no known key has nested arrays.
const MAX_NESTING: usize = 4;

/// Description of a tensor and the range of its blocks in the file.
#[derive(Debug)]
pub(super) struct TensorInfo {
    pub(super) name: String,
    pub(super) dtype: GgmlType,
    /// Row-major as in PyTorch: the reverse of the file's order.
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Range<usize>,
}

impl TensorInfo {
    /// The byte range of some rows. A row has a whole number of blocks.
    pub(super) fn rows(&self, rows: Range<usize>) -> Range<usize> {
        let row = self.shape.last().copied().unwrap_or(1) / self.dtype.block_len()
            * self.dtype.block_bytes();
        let bytes = self.bytes.start + rows.start * row..self.bytes.start + rows.end * row;
        assert!(
            bytes.start <= bytes.end && bytes.end <= self.bytes.end,
            "{} has no rows {rows:?}",
            self.name
        );
        bytes
    }
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
    /// Index of each tensor in `tensors` by name.
    pub(super) index: HashMap<String, usize>,
}

impl Header {
    /// Parses and validates the header; `bytes` is the whole file.
    pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Header, HubError> {
        let mut cursor = Cursor { file, bytes, at: 0 };
        let (tensors, keys) = cursor.counts()?;
        let metadata = cursor.metadata(keys)?;
        let alignment = alignment(&metadata)
            .map_err(|cause| cursor.invalid(cursor.at, Location::Key(ALIGNMENT_KEY), cause))?;
        let mut header = Header { metadata, tensors: Vec::new(), index: HashMap::new() };
        for number in 0..tensors {
            let info = cursor.tensor(number, alignment)?;
            if header.index.insert(info.name.clone(), header.tensors.len()).is_some() {
                let cause = "there are two tensors of this name".into();
                return Err(cursor.invalid(cursor.at, Location::Tensor(&info.name), cause));
            }
            header.tensors.push(info);
        }
        cursor.check_data_ranges(alignment, &mut header.tensors)?;
        Ok(header)
    }
}

/// The alignment of the data in bytes, or an error cause.
fn alignment(metadata: &Metadata) -> Result<usize, String> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(ALIGNMENT),
        Some(&Value::U32(value)) if value.is_power_of_two() => Ok(value as usize),
        Some(Value::U32(value)) => Err(format!("the alignment {value} is not a power of two")),
        Some(_) => Err("the alignment is not a u32".into()),
    }
}

/// The part of the header that is being read, for error messages.
#[derive(Clone, Copy)]
enum Location<'a> {
    Header,
    KeyNumber(usize),
    Key(&'a str),
    TensorNumber(usize),
    Tensor(&'a str),
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Header => f.write_str("header"),
            Location::KeyNumber(number) => write!(f, "metadata key number {number}"),
            Location::Key(key) => write!(f, "metadata key `{}`", quoted(key)),
            Location::TensorNumber(number) => write!(f, "tensor number {number}"),
            Location::Tensor(name) => write!(f, "tensor `{}`", quoted(name)),
        }
    }
}

struct Cursor<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn invalid(&self, at: usize, location: Location<'_>, cause: String) -> HubError {
        HubError::InvalidGguf {
            file: self.file.to_owned(),
            place: format!("{location} (byte {at})"),
            cause,
        }
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, length: usize, location: Location<'_>) -> Result<&'a [u8], HubError> {
        if length > self.remaining() {
            return Err(HubError::TruncatedGguf {
                file: self.file.to_owned(),
                place: format!("{location} (byte {})", self.at),
                actual: self.bytes.len() as u64,
                expected: self.at.saturating_add(length) as u64,
            });
        }
        let taken = &self.bytes[self.at..][..length];
        self.at += length;
        Ok(taken)
    }

    fn number<const N: usize, T>(
        &mut self,
        location: Location<'_>,
        from_bytes: fn([u8; N]) -> T,
    ) -> Result<T, HubError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, location)?);
        Ok(from_bytes(bytes))
    }

    /// Reads a count of items with at least `smallest` bytes each, checked against the remaining
    /// bytes.
    fn count(
        &mut self,
        what: &str,
        smallest: usize,
        location: Location<'_>,
    ) -> Result<usize, HubError> {
        let at = self.at;
        let count = self.number(location, u64::from_le_bytes)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.remaining() / smallest => Ok(count),
            _ => {
                let remaining = self.remaining();
                let cause =
                    format!("it announces {count} {what}, but only {remaining} bytes follow");
                Err(self.invalid(at, location, cause))
            }
        }
    }

    fn string(&mut self, location: Location<'_>) -> Result<&'a str, HubError> {
        let length = self.count("bytes of text", 1, location)?;
        let at = self.at;
        let bytes = self.take(length, location)?;
        std::str::from_utf8(bytes).map_err(|e| {
            self.invalid(at + e.valid_up_to(), location, "the text is not valid UTF-8".into())
        })
    }

    /// Checks magic and version. Returns the numbers of tensors and keys.
    fn counts(&mut self) -> Result<(usize, usize), HubError> {
        let location = Location::Header;
        if self.take(MAGIC.len(), location)? != MAGIC {
            return Err(self.invalid(0, location, "it does not begin with `GGUF`".into()));
        }
        let version = self.number(location, u32::from_le_bytes)?;
        if !(2..=3).contains(&version) {
            return Err(HubError::GgufVersion { file: self.file.to_owned(), version });
        }
        // Minimum sizes. Tensor: name length, dimension count, type, offset. Key: name length,
        // type, a one-byte value.
        let tensors = self.count("tensors", 8 + 4 + 4 + 8, location)?;
        let keys = self.count("metadata keys", 8 + 4 + 1, location)?;
        Ok((tensors, keys))
    }

    fn metadata(&mut self, keys: usize) -> Result<Metadata, HubError> {
        let mut metadata = Metadata::for_file(self.file);
        for number in 0..keys {
            let at = self.at;
            let key = self.string(Location::KeyNumber(number))?;
            let location = Location::Key(key);
            let kind = self.value_type(location)?;
            let value = self.value(kind, location)?;
            if metadata.insert(key, value).is_some() {
                return Err(self.invalid(at, location, "this key occurs twice".into()));
            }
        }
        Ok(metadata)
    }

    fn value_type(&mut self, location: Location<'_>) -> Result<ValueType, HubError> {
        let at = self.at;
        let code = self.number(location, u32::from_le_bytes)?;
        ValueType::from_code(code).ok_or_else(|| {
            self.invalid(at, location, format!("there is no value type with number {code}"))
        })
    }

    fn value(&mut self, kind: ValueType, location: Location<'_>) -> Result<Value, HubError> {
        Ok(match kind {
            ValueType::U8 => Value::U8(self.number(location, u8::from_le_bytes)?),
            ValueType::I8 => Value::I8(self.number(location, i8::from_le_bytes)?),
            ValueType::U16 => Value::U16(self.number(location, u16::from_le_bytes)?),
            ValueType::I16 => Value::I16(self.number(location, i16::from_le_bytes)?),
            ValueType::U32 => Value::U32(self.number(location, u32::from_le_bytes)?),
            ValueType::I32 => Value::I32(self.number(location, i32::from_le_bytes)?),
            ValueType::F32 => Value::F32(self.number(location, f32::from_le_bytes)?),
            ValueType::U64 => Value::U64(self.number(location, u64::from_le_bytes)?),
            ValueType::I64 => Value::I64(self.number(location, i64::from_le_bytes)?),
            ValueType::F64 => Value::F64(self.number(location, f64::from_le_bytes)?),
            ValueType::Bool => Value::Bool(self.boolean(location)?),
            ValueType::String => Value::String(self.string(location)?.to_owned()),
            ValueType::Array => Value::Array(self.array(0, location)?),
        })
    }

    fn boolean(&mut self, location: Location<'_>) -> Result<bool, HubError> {
        let at = self.at;
        match self.number(location, u8::from_le_bytes)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.invalid(at, location, format!("a bool is 0 or 1, not {other}"))),
        }
    }

    fn array(&mut self, depth: usize, location: Location<'_>) -> Result<Array, HubError> {
        if depth == MAX_NESTING {
            let cause = format!("its arrays are nested more than {MAX_NESTING} deep");
            return Err(self.invalid(self.at, location, cause));
        }
        let kind = self.value_type(location)?;
        Ok(match kind {
            ValueType::U8 => Array::U8(self.numbers(location, u8::from_le_bytes)?),
            ValueType::I8 => Array::I8(self.numbers(location, i8::from_le_bytes)?),
            ValueType::U16 => Array::U16(self.numbers(location, u16::from_le_bytes)?),
            ValueType::I16 => Array::I16(self.numbers(location, i16::from_le_bytes)?),
            ValueType::U32 => Array::U32(self.numbers(location, u32::from_le_bytes)?),
            ValueType::I32 => Array::I32(self.numbers(location, i32::from_le_bytes)?),
            ValueType::F32 => Array::F32(self.numbers(location, f32::from_le_bytes)?),
            ValueType::U64 => Array::U64(self.numbers(location, u64::from_le_bytes)?),
            ValueType::I64 => Array::I64(self.numbers(location, i64::from_le_bytes)?),
            ValueType::F64 => Array::F64(self.numbers(location, f64::from_le_bytes)?),
            ValueType::Bool => {
                let count = self.count("items", 1, location)?;
                Array::Bool((0..count).map(|_| self.boolean(location)).collect::<Result<_, _>>()?)
            }
            ValueType::String => {
                // An empty string is just its length.
                let count = self.count("items", 8, location)?;
                let text = |_| self.string(location).map(str::to_owned);
                Array::String((0..count).map(text).collect::<Result<_, _>>()?)
            }
            ValueType::Array => {
                // An empty array is just its type and length.
                let count = self.count("items", 4 + 8, location)?;
                let array = |_| self.array(depth + 1, location);
                Array::Array((0..count).map(array).collect::<Result<_, _>>()?)
            }
        })
    }

    fn numbers<const N: usize, T>(
        &mut self,
        location: Location<'_>,
        from_bytes: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, HubError> {
        let count = self.count("items", N, location)?;
        Ok(self
            .take(count * N, location)?
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| from_bytes(bytes))
            .collect())
    }

    /// Reads the description of a tensor. Its byte range is relative to the start of the data,
    /// which is known only after all descriptions.
    fn tensor(&mut self, number: usize, alignment: usize) -> Result<TensorInfo, HubError> {
        let name = self.string(Location::TensorNumber(number))?;
        let location = Location::Tensor(name);
        let at = self.at;
        let dims = self.number(location, u32::from_le_bytes)?;
        if dims as usize > MAX_DIMS {
            let cause = format!("it has {dims} dimensions, but ggml supports at most {MAX_DIMS}");
            return Err(self.invalid(at, location, cause));
        }
        let mut shape = Vec::new();
        // u64 suffices: the number of values in a file fits usize.
        let mut values = 1_u64;
        for _ in 0..dims {
            let at = self.at;
            let dim = self.number(location, u64::from_le_bytes)?;
            values = values.checked_mul(dim).filter(|_| i64::try_from(dim).is_ok()).ok_or_else(
                || self.invalid(at, location, format!("its dimensions overflow ({dim})")),
            )?;
            shape.push(dim as usize);
        }
        let at = self.at;
        let code = self.number(location, u32::from_le_bytes)?;
        // Without the block size of the type nothing else can be checked.
        let Some(dtype) = GgmlType::from_code(code) else {
            let cause = format!("its type has the number {code}, which is none of ggml's types");
            return Err(self.invalid(at, location, cause));
        };
        let (row, block) = (shape.first().copied().unwrap_or(1), dtype.block_len());
        if !row.is_multiple_of(block) {
            let cause = format!(
                "its rows have {row} values, which is no multiple of a {dtype} block ({block})"
            );
            return Err(self.invalid(at, location, cause));
        }
        let at = self.at;
        let offset = self.number(location, u64::from_le_bytes)?;
        if !offset.is_multiple_of(alignment as u64) {
            let cause =
                format!("its data begins at offset {offset}, which is no multiple of {alignment}");
            return Err(self.invalid(at, location, cause));
        }
        let end = (values / block as u64)
            .checked_mul(dtype.block_bytes() as u64)
            .and_then(|length| offset.checked_add(length))
            .filter(|&end| end <= self.bytes.len() as u64)
            .ok_or_else(|| {
                let length = self.bytes.len();
                let cause = format!(
                    "its data ({values} values of {dtype} at offset {offset}) ends beyond the end \
                     of the file, which has {length} bytes"
                );
                self.invalid(at, location, cause)
            })?;
        shape.reverse();
        Ok(TensorInfo { name: name.to_owned(), dtype, shape, bytes: offset as usize..end as usize })
    }

    /// Makes the tensors' byte ranges absolute. Checks that each is within the file, that none
    /// overlap, and that gaps are smaller than the alignment.
    fn check_data_ranges(
        &self,
        alignment: usize,
        tensors: &mut [TensorInfo],
    ) -> Result<(), HubError> {
        let length = self.bytes.len();
        let start = self.at.checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
        for info in &mut *tensors {
            let end = start.saturating_add(info.bytes.end);
            // A tensor without values is never read, so its offset is irrelevant.
            if info.bytes.is_empty() {
                info.bytes = 0..0;
            } else if end <= length {
                info.bytes = start + info.bytes.start..end;
            } else {
                let cause = format!(
                    "its data ends at byte {end}, but the file has {length}: it is truncated"
                );
                return Err(self.invalid(self.at, Location::Tensor(&info.name), cause));
            }
        }
        let mut order: Vec<&TensorInfo> =
            tensors.iter().filter(|info| !info.bytes.is_empty()).collect();
        order.sort_by_key(|info| info.bytes.start);
        for pair in order.windows(2) {
            if pair[0].bytes.end > pair[1].bytes.start {
                let cause =
                    format!("its data overlaps that of the tensor `{}`", quoted(&pair[0].name));
                return Err(self.invalid(
                    pair[1].bytes.start,
                    Location::Tensor(&pair[1].name),
                    cause,
                ));
            }
        }
        let mut end = start;
        for info in order {
            let gap = info.bytes.start - end;
            if gap >= alignment {
                let cause = format!(
                    "the {gap} bytes before its data belong to no tensor: an offset is wrong, or \
                     a tensor is missing"
                );
                return Err(self.invalid(info.bytes.start, Location::Tensor(&info.name), cause));
            }
            end = info.bytes.end;
        }
        Ok(())
    }
}
