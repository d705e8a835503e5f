//! Everything before the data of a GGUF file, parsed without trusting it.
//!
//! Layout (little-endian): `GGUF`, version u32, number of tensors u64, number of keys u64; the keys, each a
//! string, a type u32 and a value; the tensors, each a string, the number of dimensions u32, the dimensions u64
//! (fastest first), the type u32 and the offset u64 in the data; padding to the alignment; the data. A string is
//! its length u64 and UTF-8; an array its type u32, its length u64 and its items. Versions 2 and 3 are the same
//! for little-endian files. Source: the GGUF specification, `docs/gguf.md` of ggml.
//!
//! Every count is compared with the bytes that are left before anything of its size is allocated, so that memory
//! stays in proportion to the file.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use super::metadata::{Array, Metadata, Value, ValueType};
use super::{ALIGNMENT, ALIGNMENT_KEY, GgmlType, MAGIC, MAX_DIMS, quoted};
use crate::HubError;

/// Arrays of arrays of … deeper than this are refused; no known key has any at all.
const MAX_NESTING: usize = 4;

/// What a tensor is and where its blocks are in the file.
#[derive(Debug)]
pub(super) struct Info {
    pub(super) name: String,
    pub(super) dtype: GgmlType,
    /// Row-major, as in PyTorch: the file's order reversed.
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Range<usize>,
}

impl Info {
    /// Where some of its rows are, which are whole blocks.
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
    pub(super) tensors: Vec<Info>,
    /// Place of each name in `tensors`.
    pub(super) places: HashMap<String, usize>,
}

impl Header {
    /// Parses and checks the whole header; `bytes` is the whole file.
    pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Header, HubError> {
        let mut cursor = Cursor { file, bytes, at: 0 };
        let (tensors, keys) = cursor.counts()?;
        let metadata = cursor.metadata(keys)?;
        let alignment = alignment(&metadata)
            .map_err(|cause| cursor.bad(cursor.at, Place::Key(ALIGNMENT_KEY), cause))?;
        let mut header = Header { metadata, tensors: Vec::new(), places: HashMap::new() };
        for number in 0..tensors {
            let info = cursor.tensor(number, alignment)?;
            if header.places.insert(info.name.clone(), header.tensors.len()).is_some() {
                let cause = "there are two tensors of this name".into();
                return Err(cursor.bad(cursor.at, Place::Tensor(&info.name), cause));
            }
            header.tensors.push(info);
        }
        cursor.place_tensors(alignment, &mut header.tensors)?;
        Ok(header)
    }
}

/// The alignment of the data in bytes, or what is wrong with it.
fn alignment(metadata: &Metadata) -> Result<usize, String> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(ALIGNMENT),
        Some(&Value::U32(value)) if value.is_power_of_two() => Ok(value as usize),
        Some(Value::U32(value)) => Err(format!("the alignment {value} is not a power of two")),
        Some(_) => Err("the alignment is not a u32".into()),
    }
}

/// What is being read, for messages.
#[derive(Clone, Copy)]
enum Place<'a> {
    Header,
    KeyNumber(usize),
    Key(&'a str),
    TensorNumber(usize),
    Tensor(&'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header => f.write_str("header"),
            Place::KeyNumber(number) => write!(f, "metadata key number {number}"),
            Place::Key(key) => write!(f, "metadata key `{}`", quoted(key)),
            Place::TensorNumber(number) => write!(f, "tensor number {number}"),
            Place::Tensor(name) => write!(f, "tensor `{}`", quoted(name)),
        }
    }
}

struct Cursor<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn bad(&self, at: usize, place: Place<'_>, cause: String) -> HubError {
        HubError::BadGguf {
            file: self.file.to_owned(),
            place: format!("{place} (byte {at})"),
            cause,
        }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, length: usize, place: Place<'_>) -> Result<&'a [u8], HubError> {
        let left = self.left();
        if length > left {
            let cause = format!("{length} more bytes belong here, but the file ends after {left}");
            return Err(self.bad(self.at, place, cause));
        }
        let taken = &self.bytes[self.at..][..length];
        self.at += length;
        Ok(taken)
    }

    fn number<const N: usize, T>(
        &mut self,
        place: Place<'_>,
        of: fn([u8; N]) -> T,
    ) -> Result<T, HubError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, place)?);
        Ok(of(bytes))
    }

    /// A count of things that take at least `smallest` bytes each, so that the file must hold as many.
    fn count(&mut self, what: &str, smallest: usize, place: Place<'_>) -> Result<usize, HubError> {
        let at = self.at;
        let count = self.number(place, u64::from_le_bytes)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() / smallest => Ok(count),
            _ => {
                let left = self.left();
                let cause = format!("it announces {count} {what}, but only {left} bytes follow");
                Err(self.bad(at, place, cause))
            }
        }
    }

    fn string(&mut self, place: Place<'_>) -> Result<&'a str, HubError> {
        let length = self.count("bytes of text", 1, place)?;
        let at = self.at;
        let bytes = self.take(length, place)?;
        std::str::from_utf8(bytes).map_err(|e| {
            self.bad(at + e.valid_up_to(), place, "the text is not valid UTF-8".into())
        })
    }

    /// Checks magic and version; the numbers of tensors and of keys.
    fn counts(&mut self) -> Result<(usize, usize), HubError> {
        let place = Place::Header;
        if self.take(MAGIC.len(), place)? != MAGIC {
            return Err(self.bad(0, place, "it does not begin with `GGUF`".into()));
        }
        let version = self.number(place, u32::from_le_bytes)?;
        if !(2..=3).contains(&version) {
            return Err(HubError::GgufVersion { file: self.file.to_owned(), version });
        }
        // At least, a tensor is the length of its name, the number of its dimensions, type and offset; a key the
        // length of its name, type and a byte of value.
        let tensors = self.count("tensors", 8 + 4 + 4 + 8, place)?;
        let keys = self.count("metadata keys", 8 + 4 + 1, place)?;
        Ok((tensors, keys))
    }

    fn metadata(&mut self, keys: usize) -> Result<Metadata, HubError> {
        let mut metadata = Metadata::of_file(self.file);
        for number in 0..keys {
            let at = self.at;
            let key = self.string(Place::KeyNumber(number))?;
            let place = Place::Key(key);
            let kind = self.value_type(place)?;
            let value = self.value(kind, place)?;
            if metadata.insert(key, value).is_some() {
                return Err(self.bad(at, place, "this key is there twice".into()));
            }
        }
        Ok(metadata)
    }

    fn value_type(&mut self, place: Place<'_>) -> Result<ValueType, HubError> {
        let at = self.at;
        let code = self.number(place, u32::from_le_bytes)?;
        ValueType::from_code(code).ok_or_else(|| {
            self.bad(at, place, format!("there is no type of values with number {code}"))
        })
    }

    fn value(&mut self, kind: ValueType, place: Place<'_>) -> Result<Value, HubError> {
        Ok(match kind {
            ValueType::U8 => Value::U8(self.number(place, u8::from_le_bytes)?),
            ValueType::I8 => Value::I8(self.number(place, i8::from_le_bytes)?),
            ValueType::U16 => Value::U16(self.number(place, u16::from_le_bytes)?),
            ValueType::I16 => Value::I16(self.number(place, i16::from_le_bytes)?),
            ValueType::U32 => Value::U32(self.number(place, u32::from_le_bytes)?),
            ValueType::I32 => Value::I32(self.number(place, i32::from_le_bytes)?),
            ValueType::F32 => Value::F32(self.number(place, f32::from_le_bytes)?),
            ValueType::U64 => Value::U64(self.number(place, u64::from_le_bytes)?),
            ValueType::I64 => Value::I64(self.number(place, i64::from_le_bytes)?),
            ValueType::F64 => Value::F64(self.number(place, f64::from_le_bytes)?),
            ValueType::Bool => Value::Bool(self.boolean(place)?),
            ValueType::String => Value::String(self.string(place)?.to_owned()),
            ValueType::Array => Value::Array(self.array(0, place)?),
        })
    }

    fn boolean(&mut self, place: Place<'_>) -> Result<bool, HubError> {
        let at = self.at;
        match self.number(place, u8::from_le_bytes)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.bad(at, place, format!("a bool is 0 or 1, not {other}"))),
        }
    }

    fn array(&mut self, depth: usize, place: Place<'_>) -> Result<Array, HubError> {
        if depth == MAX_NESTING {
            let cause = format!("its arrays are nested more than {MAX_NESTING} deep");
            return Err(self.bad(self.at, place, cause));
        }
        let kind = self.value_type(place)?;
        Ok(match kind {
            ValueType::U8 => Array::U8(self.numbers(place, u8::from_le_bytes)?),
            ValueType::I8 => Array::I8(self.numbers(place, i8::from_le_bytes)?),
            ValueType::U16 => Array::U16(self.numbers(place, u16::from_le_bytes)?),
            ValueType::I16 => Array::I16(self.numbers(place, i16::from_le_bytes)?),
            ValueType::U32 => Array::U32(self.numbers(place, u32::from_le_bytes)?),
            ValueType::I32 => Array::I32(self.numbers(place, i32::from_le_bytes)?),
            ValueType::F32 => Array::F32(self.numbers(place, f32::from_le_bytes)?),
            ValueType::U64 => Array::U64(self.numbers(place, u64::from_le_bytes)?),
            ValueType::I64 => Array::I64(self.numbers(place, i64::from_le_bytes)?),
            ValueType::F64 => Array::F64(self.numbers(place, f64::from_le_bytes)?),
            ValueType::Bool => {
                let count = self.count("items", 1, place)?;
                Array::Bool((0..count).map(|_| self.boolean(place)).collect::<Result<_, _>>()?)
            }
            ValueType::String => {
                // An empty text is its length.
                let count = self.count("items", 8, place)?;
                let text = |_| self.string(place).map(str::to_owned);
                Array::String((0..count).map(text).collect::<Result<_, _>>()?)
            }
            ValueType::Array => {
                // An empty array is its type and its length.
                let count = self.count("items", 4 + 8, place)?;
                let array = |_| self.array(depth + 1, place);
                Array::Array((0..count).map(array).collect::<Result<_, _>>()?)
            }
        })
    }

    fn numbers<const N: usize, T>(
        &mut self,
        place: Place<'_>,
        of: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, HubError> {
        let count = self.count("items", N, place)?;
        Ok(self.take(count * N, place)?.as_chunks().0.iter().map(|&bytes| of(bytes)).collect())
    }

    /// Reads what is said about a tensor. The range of its bytes counts from the start of the data, which is
    /// known only when all tensors have been read.
    fn tensor(&mut self, number: usize, alignment: usize) -> Result<Info, HubError> {
        let name = self.string(Place::TensorNumber(number))?;
        let place = Place::Tensor(name);
        let at = self.at;
        let dims = self.number(place, u32::from_le_bytes)?;
        if dims as usize > MAX_DIMS {
            let cause = format!("it has {dims} dimensions, but ggml knows {MAX_DIMS} at most");
            return Err(self.bad(at, place, cause));
        }
        let mut shape = Vec::new();
        // Wide enough for any file, and what is in the file fits usize.
        let mut values = 1_u64;
        for _ in 0..dims {
            let at = self.at;
            let dim = self.number(place, u64::from_le_bytes)?;
            values = values
                .checked_mul(dim)
                .filter(|_| i64::try_from(dim).is_ok())
                .ok_or_else(|| self.bad(at, place, format!("its dimensions overflow ({dim})")))?;
            shape.push(dim as usize);
        }
        let at = self.at;
        let code = self.number(place, u32::from_le_bytes)?;
        // The size of an unknown type is unknown too, so that nothing about the tensor can be checked.
        let Some(dtype) = GgmlType::from_code(code) else {
            let cause = format!("its type has the number {code}, which is none of ggml's types");
            return Err(self.bad(at, place, cause));
        };
        let (row, block) = (shape.first().copied().unwrap_or(1), dtype.block_len());
        if !row.is_multiple_of(block) {
            let cause = format!(
                "its rows have {row} values, which is no multiple of a {dtype} block ({block})"
            );
            return Err(self.bad(at, place, cause));
        }
        let at = self.at;
        let offset = self.number(place, u64::from_le_bytes)?;
        if !offset.is_multiple_of(alignment as u64) {
            let cause =
                format!("its data begins at offset {offset}, which is no multiple of {alignment}");
            return Err(self.bad(at, place, cause));
        }
        let end = (values / block as u64)
            .checked_mul(dtype.block_bytes() as u64)
            .and_then(|length| offset.checked_add(length))
            .filter(|&end| end <= self.bytes.len() as u64)
            .ok_or_else(|| {
                let length = self.bytes.len();
                let cause = format!(
                    "its data ({values} values of {dtype} at offset {offset}) reaches beyond the end of the \
                     file, which has {length} bytes"
                );
                self.bad(at, place, cause)
            })?;
        shape.reverse();
        Ok(Info { name: name.to_owned(), dtype, shape, bytes: offset as usize..end as usize })
    }

    /// Moves the tensors' ranges to the start of the data, and checks that each lies within the file, that none
    /// overlap, and that nothing but the padding to the alignment lies between them.
    fn place_tensors(&self, alignment: usize, tensors: &mut [Info]) -> Result<(), HubError> {
        let length = self.bytes.len();
        let start = self.at.checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
        for info in &mut *tensors {
            let end = start.saturating_add(info.bytes.end);
            // Nothing is read of a tensor without values, wherever it is said to be.
            if info.bytes.is_empty() {
                info.bytes = 0..0;
            } else if end <= length {
                info.bytes = start + info.bytes.start..end;
            } else {
                let cause = format!(
                    "its data ends at byte {end}, but the file has {length}: it is truncated"
                );
                return Err(self.bad(self.at, Place::Tensor(&info.name), cause));
            }
        }
        let mut order: Vec<&Info> = tensors.iter().filter(|info| !info.bytes.is_empty()).collect();
        order.sort_by_key(|info| info.bytes.start);
        for pair in order.windows(2) {
            if pair[0].bytes.end > pair[1].bytes.start {
                let cause =
                    format!("its data overlaps that of the tensor `{}`", quoted(&pair[0].name));
                return Err(self.bad(pair[1].bytes.start, Place::Tensor(&pair[1].name), cause));
            }
        }
        let mut end = start;
        for info in order {
            let gap = info.bytes.start - end;
            if gap >= alignment {
                let cause = format!(
                    "the {gap} bytes before its data belong to no tensor: an offset is wrong, or one is missing"
                );
                return Err(self.bad(info.bytes.start, Place::Tensor(&info.name), cause));
            }
            end = info.bytes.end;
        }
        Ok(())
    }
}
