//! A restricted reader for the pickle in a PyTorch file.
//!
//! A pickle is a program for a stack machine, and Python's machine can import and call anything.
//! This one supports only what `torch.save(model.state_dict())` writes (protocols 2 to 5): plain
//! values, dictionaries, and the names in [`names::global`], which are interpreted and never
//! called. Everything else is refused with its name and offset.
//!
//! Reading is total: no recursion, no panics, bounded memory. Each opcode makes at most one value
//! of fixed size, strings are slices of the pickle, and the number of opcodes is bounded.

use std::collections::BTreeMap;

use safetensors::Dtype;

use self::names::Global;

mod names;
#[cfg(test)]
mod tests;

/// Enough for 25,000 tensors at about forty opcodes each, ten times as many as in a file of the
/// largest models.
const MAX_OPCODES: usize = 1 << 20;

/// Weights have up to four dimensions (five for video convolutions). PyTorch's own limit is higher
/// and would let a hostile pickle allocate more.
const MAX_DIMENSIONS: usize = 8;

/// Why a pickle is refused. Offsets are bytes from the start of the pickle.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PickleError {
    /// It references a name that no state dict needs.
    Global {
        /// The name, as `module.name`.
        name: String,
        /// The opcode that references it.
        opcode: &'static str,
        /// Offset of the opcode.
        at: usize,
    },
    /// It uses an opcode that no state dict needs.
    Opcode {
        /// The opcode's name, or its number if it has none.
        opcode: String,
        /// Offset of the opcode.
        at: usize,
    },
    /// It is valid, but not a dictionary of tensors.
    NotStateDict(String),
    /// It is not a valid pickle.
    Malformed {
        /// Offset of the error.
        at: usize,
        /// What is wrong.
        cause: String,
    },
}

/// A tensor as described by the pickle: an unchecked view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorView<'a> {
    pub(crate) storage: Storage<'a>,
    pub(crate) dtype: Dtype,
    /// Index of the first element in the storage.
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    /// Strides in elements, one per dimension.
    pub(crate) strides: Vec<usize>,
}

/// A named block of data in the PyTorch file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Storage<'a> {
    /// Its file name within `data/`.
    pub(crate) key: &'a str,
    /// Element type; `None` if untyped, with elements of one byte.
    dtype: Option<Dtype>,
    /// Number of elements that the pickle claims.
    pub(crate) elements: usize,
}

/// Reads the tensors of a pickled state dict; entries of other types are skipped.
pub(crate) fn state_dict(pickle: &[u8]) -> Result<BTreeMap<&str, TensorView<'_>>, PickleError> {
    let mut machine = PickleMachine {
        bytes: pickle,
        next: 0,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        sequences: Vec::new(),
        dicts: Vec::new(),
        storages: Vec::new(),
        tensors: Vec::new(),
    };
    for _ in 0..MAX_OPCODES {
        if machine.step()? {
            return machine.finish();
        }
    }
    Err(machine
        .malformed(format!("it goes on after {MAX_OPCODES} opcodes; weights need far fewer")))
}

/// A value on the stack. Compound values are indices into the machine, because their contents can
/// change after they are memoised.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    None,
    Bool,
    Float,
    Int(i64),
    Text(&'a str),
    Global(Global),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Storage(usize),
    Tensor(usize),
}

impl Value<'_> {
    fn describe(self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool => "a bool",
            Value::Float => "a float",
            Value::Int(_) => "an int",
            Value::Text(_) => "a string",
            Value::Global(_) => "a type or function",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dictionary",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}

struct PickleMachine<'a> {
    bytes: &'a [u8],
    /// Offset of the next byte.
    next: usize,
    /// Offset of the current opcode.
    at: usize,
    stack: Vec<Value<'a>>,
    /// Stack heights at open marks.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value<'a>>,
    /// Contents of tuples and lists.
    sequences: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<TensorView<'a>>,
}

type PickleResult<T> = Result<T, PickleError>;

impl<'a> PickleMachine<'a> {
    /// Executes one opcode; returns true after STOP.
    fn step(&mut self) -> PickleResult<bool> {
        self.at = self.next;
        let [opcode] = self.take_array()?;
        match opcode {
            b'.' => return Ok(true),
            0x80 => {
                let [protocol] = self.take_array()?;
                if !(2..=5).contains(&protocol) {
                    return Err(self.malformed(format!("protocol {protocol} is none of 2 to 5")));
                }
            }
            // A read-ahead hint for Python.
            0x95 => drop(self.take_array::<8>()?),
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool),
            b'J' => {
                let int = i32::from_le_bytes(self.take_array()?);
                self.stack.push(Value::Int(int.into()));
            }
            b'K' => {
                let [int] = self.take_array()?;
                self.stack.push(Value::Int(int.into()));
            }
            b'M' => {
                let int = u16::from_le_bytes(self.take_array()?);
                self.stack.push(Value::Int(int.into()));
            }
            0x8a => self.long()?,
            b'G' => {
                self.take_array::<8>()?;
                self.stack.push(Value::Float);
            }
            b'X' => {
                let length = u32::from_le_bytes(self.take_array()?);
                self.text(length.into())?;
            }
            0x8c => {
                let [length] = self.take_array()?;
                self.text(length.into())?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.take_array()?);
                self.text(length)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push_tuple(Vec::new()),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_tuple(items);
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push_tuple(items);
            }
            b']' => {
                self.sequences.push(Vec::new());
                self.stack.push(Value::List(self.sequences.len() - 1));
            }
            b'a' => {
                let items = self.pop_many(1)?;
                self.extend_list(items)?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend_list(items)?;
            }
            b'}' => self.push_dict(),
            b's' => {
                let items = self.pop_many(2)?;
                self.extend_dict(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.extend_dict(&items)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err(self.malformed("the name of a global is not a string"));
                };
                self.global(module, name)?;
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => self.persistent_id()?,
            b'q' => {
                let [key] = self.take_array()?;
                self.memo_put(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.take_array()?);
                self.memo_put(key)?;
            }
            // Cannot overflow: there are at most `MAX_OPCODES` memo entries.
            0x94 => self.memo_put(self.memo.len() as u32)?,
            b'h' => {
                let [key] = self.take_array()?;
                self.memo_get(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.take_array()?);
                self.memo_get(key)?;
            }
            other => {
                let opcode =
                    names::opcode(other).map_or_else(|| format!("{other:#04x}"), str::to_owned);
                return Err(PickleError::Opcode { opcode, at: self.at });
            }
        }
        Ok(false)
    }

    /// The state dict, after STOP.
    fn finish(mut self) -> PickleResult<BTreeMap<&'a str, TensorView<'a>>> {
        let not_a_state_dict = |cause: String| Err(PickleError::NotStateDict(cause));
        let dict = match self.pop()? {
            Value::Dict(dict) => &self.dicts[dict],
            other => return not_a_state_dict(format!("it holds {}", other.describe())),
        };
        let mut tensors = BTreeMap::new();
        for (key, value) in dict {
            match (*key, *value) {
                // As in Python, the last of several entries with the same key counts.
                (Value::Text(name), Value::Tensor(tensor)) => {
                    tensors.insert(name, self.tensors[tensor].clone());
                }
                (key, Value::Tensor(_)) => {
                    return not_a_state_dict(format!(
                        "one of its tensors is named by {}",
                        key.describe()
                    ));
                }
                _ => {}
            }
        }
        // Training checkpoints nest the model's state dict next to the optimizer's.
        let nested = dict.iter().find_map(|(key, value)| match (*key, *value) {
            (Value::Text(name), Value::Dict(_)) => Some(name),
            _ => None,
        });
        match nested {
            Some(name) if tensors.is_empty() => {
                not_a_state_dict(format!("its entry `{}` is another dictionary", printable(name)))
            }
            _ => Ok(tensors),
        }
    }

    fn malformed(&self, cause: impl Into<String>) -> PickleError {
        PickleError::Malformed { at: self.at, cause: cause.into() }
    }

    /// Name of the current opcode, which is a supported one.
    fn opcode(&self) -> &'static str {
        self.bytes.get(self.at).and_then(|&code| names::opcode(code)).unwrap_or("an opcode")
    }

    fn take(&mut self, length: u64) -> PickleResult<&'a [u8]> {
        let end = usize::try_from(length).ok().and_then(|length| self.next.checked_add(length));
        match end.and_then(|end| self.bytes.get(self.next..end)) {
            Some(taken) => {
                self.next += taken.len();
                Ok(taken)
            }
            None => Err(self.malformed("it ends too early")),
        }
    }

    fn take_array<const N: usize>(&mut self) -> PickleResult<[u8; N]> {
        let taken = self.take(N as u64)?;
        taken.try_into().map_err(|_| self.malformed("it ends too early"))
    }

    fn utf8(&self, bytes: &'a [u8]) -> PickleResult<&'a str> {
        str::from_utf8(bytes).map_err(|_| self.malformed("a string is not UTF-8"))
    }

    /// A newline-terminated string.
    fn line(&mut self) -> PickleResult<&'a str> {
        let rest = &self.bytes[self.next..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(self.malformed("it ends too early"));
        };
        self.next += length + 1;
        self.utf8(&rest[..length])
    }

    fn text(&mut self, length: u64) -> PickleResult<()> {
        let bytes = self.take(length)?;
        let text = self.utf8(bytes)?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    /// A signed integer of any length; only those that fit 64 bits are supported.
    fn long(&mut self) -> PickleResult<()> {
        let [length] = self.take_array()?;
        let bytes = self.take(length.into())?;
        if bytes.len() > 8 {
            return Err(self.malformed("an integer has more than 64 bits"));
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[..bytes.len()].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    /// The lowest stack height that the current opcode may reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> PickleResult<Value<'a>> {
        let empty = self.stack.len() <= self.floor();
        match self.stack.pop() {
            Some(value) if !empty => Ok(value),
            _ => Err(self.malformed(format!("{} finds too few values", self.opcode()))),
        }
    }

    /// Pops `count` values, lowest first.
    fn pop_many(&mut self, count: usize) -> PickleResult<Vec<Value<'a>>> {
        match self.stack.len().checked_sub(count) {
            Some(rest) if rest >= self.floor() => Ok(self.stack.split_off(rest)),
            _ => Err(self.malformed(format!("{} finds too few values", self.opcode()))),
        }
    }

    /// Pops all values above the last mark, and the mark.
    fn pop_to_mark(&mut self) -> PickleResult<Vec<Value<'a>>> {
        match self.marks.pop() {
            // Pops stop at the mark, so the stack is at least as high.
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.malformed(format!("{} finds no mark", self.opcode()))),
        }
    }

    fn top(&self) -> PickleResult<Value<'a>> {
        match self.stack.last() {
            Some(&value) if self.stack.len() > self.floor() => Ok(value),
            _ => Err(self.malformed(format!("{} finds too few values", self.opcode()))),
        }
    }

    fn push_tuple(&mut self, items: Vec<Value<'a>>) {
        self.sequences.push(items);
        self.stack.push(Value::Tuple(self.sequences.len() - 1));
    }

    fn push_dict(&mut self) {
        self.dicts.push(Vec::new());
        self.stack.push(Value::Dict(self.dicts.len() - 1));
    }

    fn extend_list(&mut self, items: Vec<Value<'a>>) -> PickleResult<()> {
        match self.top()? {
            Value::List(list) => self.sequences[list].extend(items),
            other => return Err(self.malformed(format!("items are added to {}", other.describe()))),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Value<'a>]) -> PickleResult<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            _ if !rest.is_empty() => {
                return Err(self.malformed("a key of a dictionary has no value"));
            }
            Value::Dict(dict) => {
                self.dicts[dict].extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            other => {
                return Err(self.malformed(format!("entries are added to {}", other.describe())));
            }
        }
        Ok(())
    }

    fn memo_put(&mut self, key: u32) -> PickleResult<()> {
        self.memo.insert(key, self.top()?);
        Ok(())
    }

    fn memo_get(&mut self, key: u32) -> PickleResult<()> {
        match self.memo.get(&key) {
            Some(&value) => self.stack.push(value),
            None => return Err(self.malformed(format!("the memo has no entry {key}"))),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> PickleResult<()> {
        let Some(global) = names::global(module, name) else {
            let name = format!("{}.{}", printable(module), printable(name));
            return Err(PickleError::Global { name, opcode: self.opcode(), at: self.at });
        };
        self.stack.push(Value::Global(global));
        Ok(())
    }

    /// A reference to a storage: `('storage', class, key, device, number of elements)`.
    fn persistent_id(&mut self) -> PickleResult<()> {
        let reference = match self.pop()? {
            Value::Tuple(tuple) => self.sequences[tuple].as_slice(),
            _ => &[],
        };
        let &[
            Value::Text("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            Value::Text(_),
            Value::Int(elements),
        ] = reference
        else {
            return Err(self.malformed("a persistent id is no reference to a storage"));
        };
        let elements = self.size(elements)?;
        self.storages.push(Storage { key, dtype, elements });
        self.stack.push(Value::Storage(self.storages.len() - 1));
        Ok(())
    }

    /// Interprets a call without executing it.
    fn reduce(&mut self) -> PickleResult<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(function) = function else {
            return Err(self.malformed(format!("{} is called", function.describe())));
        };
        let Value::Tuple(arguments) = arguments else {
            return Err(self.malformed(format!("a call's arguments are {}", arguments.describe())));
        };
        // A fixed copy: repeated use of a long tuple must not cost time.
        let mut args = [Value::None; 8];
        let arguments = &self.sequences[arguments];
        let count = arguments.len();
        if count > args.len() {
            return Err(self.malformed(format!("a call has {count} arguments")));
        }
        args[..count].copy_from_slice(arguments);
        match (function, &args[..count]) {
            (Global::OrderedDict, []) => self.push_dict(),
            (Global::RebuildTensor, &[storage, offset, shape, strides, _, _, ref more @ ..])
                if more.len() <= 1 =>
            {
                self.check_no_metadata(more)?;
                self.tensor(storage, None, offset, shape, strides)?;
            }
            (
                Global::RebuildTypedTensor,
                &[storage, offset, shape, strides, _, _, dtype, ref more @ ..],
            ) if more.len() <= 1 => {
                let Value::Global(Global::Dtype(dtype)) = dtype else {
                    return Err(self.malformed(format!("an element type is {}", dtype.describe())));
                };
                self.check_no_metadata(more)?;
                self.tensor(storage, Some(dtype), offset, shape, strides)?;
            }
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), _, _]) => {
                self.stack.push(tensor);
            }
            _ => return Err(self.malformed("a call has other arguments than PyTorch gives it")),
        }
        Ok(())
    }

    /// The optional last argument of a tensor can request negation or conjugation.
    fn check_no_metadata(&self, metadata: &[Value<'a>]) -> PickleResult<()> {
        match metadata {
            [] | [Value::None] => Ok(()),
            [Value::Dict(dict)] if self.dicts[*dict].is_empty() => Ok(()),
            _ => {
                Err(self
                    .malformed("a tensor has metadata that changes its values (`conj` or `neg`)"))
            }
        }
    }

    /// Attributes of an object. `OrderedDict`s have PyTorch's `_metadata` (module versions), which
    /// does not matter for weights.
    fn build(&mut self) -> PickleResult<()> {
        self.pop()?;
        match self.top()? {
            Value::Dict(_) => Ok(()),
            other => Err(self.malformed(format!("{} gets attributes", other.describe()))),
        }
    }

    fn tensor(
        &mut self,
        storage: Value<'a>,
        dtype: Option<Dtype>,
        offset: Value<'a>,
        shape: Value<'a>,
        strides: Value<'a>,
    ) -> PickleResult<()> {
        let (Value::Storage(storage), Value::Int(offset)) = (storage, offset) else {
            return Err(self.malformed("a tensor has no storage, or no offset in it"));
        };
        let storage = self.storages[storage];
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        if shape.len() != strides.len() {
            let (shape, strides) = (shape.len(), strides.len());
            return Err(
                self.malformed(format!("a tensor has {shape} dimensions and {strides} strides"))
            );
        }
        let dtype = match (storage.dtype, dtype) {
            (Some(dtype), None) | (None, Some(dtype)) => dtype,
            (None, None) => return Err(self.malformed("a tensor has no element type")),
            (Some(_), Some(_)) => return Err(self.malformed("a tensor has two element types")),
        };
        // An untyped storage counts bytes; convert its length to elements.
        let bytes = if storage.dtype.is_none() { dtype.bitsize() / 8 } else { 1 };
        let storage = Storage { elements: storage.elements / bytes.max(1), ..storage };
        let offset = self.size(offset)?;
        self.tensors.push(TensorView { storage, dtype, offset, shape, strides });
        self.stack.push(Value::Tensor(self.tensors.len() - 1));
        Ok(())
    }

    fn size(&self, int: i64) -> PickleResult<usize> {
        usize::try_from(int).map_err(|_| self.malformed(format!("{int} is no size")))
    }

    fn sizes(&self, tuple: Value<'a>) -> PickleResult<Vec<usize>> {
        let Value::Tuple(tuple) = tuple else {
            return Err(self.malformed(format!("{} is no shape", tuple.describe())));
        };
        let items = &self.sequences[tuple];
        if items.len() > MAX_DIMENSIONS {
            return Err(self.malformed(format!("a tensor has {} dimensions", items.len())));
        }
        let sizes = items.iter().map(|item| match item {
            Value::Int(int) => self.size(*int),
            other => Err(self.malformed(format!("{} is no size", other.describe()))),
        });
        sizes.collect()
    }
}

/// Escapes control characters of a name from the file and truncates it, for error messages.
fn printable(name: &str) -> String {
    let mut printable: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        printable.push('…');
    }
    printable
}
