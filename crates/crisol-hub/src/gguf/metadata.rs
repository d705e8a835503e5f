//! The metadata of a GGUF file: keys with typed values, in file order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::quoted;
use crate::HubError;

/// The type of a metadata value, with its number in the file (`gguf_metadata_value_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    pub(super) fn from_code(code: u32) -> Option<ValueType> {
        use ValueType::{Array, Bool, F32, F64, I8, I16, I32, I64, String, U8, U16, U32, U64};
        let types = [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64];
        types.into_iter().find(|&known| known as u32 == code)
    }

    fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::String => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // The variants are the types they are named after.
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A typed array of metadata. Typed since vocabularies have 10^5 entries.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // The variants are the types they are named after.
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Value {
    pub(super) fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// An integer of any width; `None` for other types.
    fn integer(&self) -> Option<i128> {
        match *self {
            Value::U8(n) => Some(n.into()),
            Value::I8(n) => Some(n.into()),
            Value::U16(n) => Some(n.into()),
            Value::I16(n) => Some(n.into()),
            Value::U32(n) => Some(n.into()),
            Value::I32(n) => Some(n.into()),
            Value::U64(n) => Some(n.into()),
            Value::I64(n) => Some(n.into()),
            Value::F32(_) | Value::F64(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) => {
                None
            }
        }
    }

    /// A description for error messages.
    fn describe(&self) -> String {
        let name = self.value_type().name();
        match self {
            Value::Array(array) => {
                format!("an array of {} × {}", array.len(), array.value_type().name())
            }
            Value::String(_) => "a string".into(),
            Value::F32(value) => format!("the {name} {value}"),
            Value::F64(value) => format!("the {name} {value}"),
            Value::Bool(value) => format!("the {name} {value}"),
            _ => self
                .integer()
                .map_or_else(|| name.to_owned(), |value| format!("the {name} {value}")),
        }
    }
}

impl Array {
    pub(super) fn value_type(&self) -> ValueType {
        match self {
            Array::U8(_) => ValueType::U8,
            Array::I8(_) => ValueType::I8,
            Array::U16(_) => ValueType::U16,
            Array::I16(_) => ValueType::I16,
            Array::U32(_) => ValueType::U32,
            Array::I32(_) => ValueType::I32,
            Array::F32(_) => ValueType::F32,
            Array::Bool(_) => ValueType::Bool,
            Array::String(_) => ValueType::String,
            Array::Array(_) => ValueType::Array,
            Array::U64(_) => ValueType::U64,
            Array::I64(_) => ValueType::I64,
            Array::F64(_) => ValueType::F64,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Array::U8(items) => items.len(),
            Array::I8(items) => items.len(),
            Array::U16(items) => items.len(),
            Array::I16(items) => items.len(),
            Array::U32(items) => items.len(),
            Array::I32(items) => items.len(),
            Array::F32(items) => items.len(),
            Array::Bool(items) => items.len(),
            Array::String(items) => items.len(),
            Array::Array(items) => items.len(),
            Array::U64(items) => items.len(),
            Array::I64(items) => items.len(),
            Array::F64(items) => items.len(),
        }
    }
}

/// Implements `From` for the types that are written.
macro_rules! values_from {
    ($($from:ty => $variant:ident;)*) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Value {
                Value::$variant(value.into())
            }
        })*
    };
}

values_from! {
    u32 => U32;
    f32 => F32;
    bool => Bool;
    &str => String;
    String => String;
    Array => Array;
    Vec<String> => Array;
    Vec<f32> => Array;
    Vec<i32> => Array;
}

impl From<Vec<String>> for Array {
    fn from(items: Vec<String>) -> Array {
        Array::String(items)
    }
}

impl From<Vec<f32>> for Array {
    fn from(items: Vec<f32>) -> Array {
        Array::F32(items)
    }
}

impl From<Vec<i32>> for Array {
    fn from(items: Vec<i32>) -> Array {
        Array::I32(items)
    }
}

/// Metadata keys and values, in file order. The typed getters are for required keys: a missing key
/// or another type is an error that names the key.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// The source file, for error messages.
    file: PathBuf,
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Default for Metadata {
    fn default() -> Metadata {
        Metadata::new()
    }
}

impl Metadata {
    /// Metadata without keys, to be filled and written.
    pub fn new() -> Metadata {
        Metadata::for_file(Path::new("(metadata not written yet)"))
    }

    pub(super) fn for_file(file: &Path) -> Metadata {
        Metadata { file: file.to_owned(), entries: Vec::new(), index: HashMap::new() }
    }

    /// Sets a key and returns its old value. An existing key keeps its position.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        if let Some(&position) = self.index.get(&key) {
            return Some(std::mem::replace(&mut self.entries[position].1, value));
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        None
    }

    /// The value of a key, of any type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&position| &self.entries[position].1)
    }

    /// All keys and values, in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A non-negative integer below 2^32, stored in any integer type.
    pub fn u32(&self, key: &str) -> Result<u32, HubError> {
        let number = |value: &Value| value.integer().and_then(|n| u32::try_from(n).ok());
        self.typed(key, "a u32", number)
    }

    /// An f32.
    pub fn f32(&self, key: &str) -> Result<f32, HubError> {
        self.typed(key, "an f32", |value| if let Value::F32(x) = value { Some(*x) } else { None })
    }

    /// A bool.
    pub fn bool(&self, key: &str) -> Result<bool, HubError> {
        self.typed(key, "a bool", |value| if let Value::Bool(x) = value { Some(*x) } else { None })
    }

    /// A string.
    pub fn string(&self, key: &str) -> Result<&str, HubError> {
        self.typed(key, "a string", |value| {
            if let Value::String(x) = value { Some(x.as_str()) } else { None }
        })
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<&[String], HubError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// An array of f32.
    pub fn f32s(&self, key: &str) -> Result<&[f32], HubError> {
        self.typed(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// An array of i32.
    pub fn i32s(&self, key: &str) -> Result<&[i32], HubError> {
        self.typed(key, "an array of i32", |value| match value {
            Value::Array(Array::I32(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        as_type: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, HubError> {
        let file = || self.file.clone();
        let value =
            self.get(key).ok_or_else(|| HubError::MissingKey { file: file(), key: quoted(key) })?;
        as_type(value).ok_or_else(|| HubError::WrongKeyType {
            file: file(),
            key: quoted(key),
            found: value.describe(),
            expected,
        })
    }
}
