//! The pickle in a PyTorch file, read without running any of it.
//!
//! A pickle is a program for a small stack machine. Python's lets it import and call anything, so that loading a
//! file can run a stranger's code. This one knows only what `torch.save(model.state_dict())` writes (protocols
//! 2 to 5): plain values, dictionaries, and the few names in [`names::global`], which it does not call but understands.
//! Everything else is refused with its name and place.
//!
//! It is total: no recursion, no panic, and no memory that a number in the file could ask for. Each opcode makes
//! at most one value of fixed size, strings stay in the pickle, and there is a bound on the number of opcodes.

use std::collections::BTreeMap;

use safetensors::Dtype;

use self::names::Global;

mod names;
#[cfg(test)]
mod tests;

/// Some forty opcodes describe one tensor, so this allows files of 25,000 tensors; the largest models have a tenth of that
/// in each of their parts.
const MAX_OPCODES: usize = 1 << 20;

/// Weights have up to four dimensions (five for video convolutions). PyTorch itself allows more, which would only
/// help a hostile pickle to take memory.
const MAX_DIMENSIONS: usize = 8;

/// Why a pickle cannot be read. Bytes are counted from the start of the pickle.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PickleError {
    /// It names something that is no part of a state dict.
    Global {
        /// The name, as `module.name`.
        name: String,
        /// The opcode that names it.
        opcode: &'static str,
        /// Where that opcode is.
        at: usize,
    },
    /// It uses an opcode that no state dict needs.
    Opcode {
        /// Its name, or its number if it has none.
        opcode: String,
        /// Where it is.
        at: usize,
    },
    /// It is a sound pickle of something else than a dictionary of tensors.
    NotStateDict(String),
    /// It is no sound pickle.
    Malformed {
        /// Where.
        at: usize,
        /// What is wrong.
        cause: String,
    },
}

/// A tensor as the pickle describes it: a view of a storage, nothing of it checked against the storage's data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorView<'a> {
    pub(crate) storage: Storage<'a>,
    pub(crate) dtype: Dtype,
    /// Place of the first element in the storage, in elements.
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    /// Steps from one index to the next, in elements, one per dimension.
    pub(crate) strides: Vec<usize>,
}

/// A named piece of data beside the pickle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Storage<'a> {
    /// Its name among the data.
    pub(crate) key: &'a str,
    /// The type of its elements; an untyped one counts bytes.
    dtype: Option<Dtype>,
    /// How many elements it says it has.
    pub(crate) elements: usize,
}

/// Reads the tensors of a pickled state dict. Entries of the dictionary that are no tensors are left out.
pub(crate) fn state_dict(pickle: &[u8]) -> Result<BTreeMap<&str, TensorView<'_>>, PickleError> {
    let mut machine = Machine {
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

/// What can lie on the stack. The contents of compound values are in the machine, by number, because a value may
/// be filled after it was remembered.
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

struct Machine<'a> {
    bytes: &'a [u8],
    /// The next byte to read.
    next: usize,
    /// Where the opcode at work is.
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at the marks that are open.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value<'a>>,
    /// Tuples and lists.
    sequences: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<TensorView<'a>>,
}

type Step<T> = Result<T, PickleError>;

impl<'a> Machine<'a> {
    /// Performs one opcode; true at the last.
    fn step(&mut self) -> Step<bool> {
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
            // Only says how much Python should read ahead.
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
            b'Q' => self.persistent()?,
            b'q' => {
                let [place] = self.take_array()?;
                self.remember(place.into())?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.take_array()?);
                self.remember(place)?;
            }
            // As many values are remembered as opcodes performed at most, which fits.
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let [place] = self.take_array()?;
                self.recall(place.into())?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.take_array()?);
                self.recall(place)?;
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
    fn finish(mut self) -> Step<BTreeMap<&'a str, TensorView<'a>>> {
        let not_a_state_dict = |cause: String| Err(PickleError::NotStateDict(cause));
        let dict = match self.pop()? {
            Value::Dict(dict) => &self.dicts[dict],
            other => return not_a_state_dict(format!("it holds {}", other.describe())),
        };
        let mut tensors = BTreeMap::new();
        for (key, value) in dict {
            match (*key, *value) {
                // As in Python, the last of several entries with one name counts.
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
        // Training checkpoints keep the state dict beside the optimizer's.
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

    /// The name of the opcode at work, which is one that is known.
    fn opcode(&self) -> &'static str {
        self.bytes.get(self.at).and_then(|&code| names::opcode(code)).unwrap_or("an opcode")
    }

    fn take(&mut self, length: u64) -> Step<&'a [u8]> {
        let end = usize::try_from(length).ok().and_then(|length| self.next.checked_add(length));
        match end.and_then(|end| self.bytes.get(self.next..end)) {
            Some(taken) => {
                self.next += taken.len();
                Ok(taken)
            }
            None => Err(self.malformed("it ends too early")),
        }
    }

    fn take_array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let taken = self.take(N as u64)?;
        taken.try_into().map_err(|_| self.malformed("it ends too early"))
    }

    fn utf8(&self, bytes: &'a [u8]) -> Step<&'a str> {
        str::from_utf8(bytes).map_err(|_| self.malformed("a string is not UTF-8"))
    }

    /// A string that ends with the line.
    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.next..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(self.malformed("it ends too early"));
        };
        self.next += length + 1;
        self.utf8(&rest[..length])
    }

    fn text(&mut self, length: u64) -> Step<()> {
        let bytes = self.take(length)?;
        let text = self.utf8(bytes)?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    /// A signed integer of any length, of which those that fit 64 bits are of use.
    fn long(&mut self) -> Step<()> {
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

    /// How far down the stack the opcode at work may reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        let empty = self.stack.len() <= self.floor();
        match self.stack.pop() {
            Some(value) if !empty => Ok(value),
            _ => Err(self.malformed(format!("{} finds too few values", self.opcode()))),
        }
    }

    /// The top `count` values, lowest first.
    fn pop_many(&mut self, count: usize) -> Step<Vec<Value<'a>>> {
        match self.stack.len().checked_sub(count) {
            Some(rest) if rest >= self.floor() => Ok(self.stack.split_off(rest)),
            _ => Err(self.malformed(format!("{} finds too few values", self.opcode()))),
        }
    }

    /// The values above the last mark, which is closed.
    fn pop_to_mark(&mut self) -> Step<Vec<Value<'a>>> {
        match self.marks.pop() {
            // Nothing reaches below a mark, so the stack is at least as high.
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.malformed(format!("{} finds no mark", self.opcode()))),
        }
    }

    fn top(&self) -> Step<Value<'a>> {
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

    fn extend_list(&mut self, items: Vec<Value<'a>>) -> Step<()> {
        match self.top()? {
            Value::List(list) => self.sequences[list].extend(items),
            other => return Err(self.malformed(format!("items are added to {}", other.describe()))),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Value<'a>]) -> Step<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            _ if !rest.is_empty() => {
                return Err(self.malformed("a key of a dictionary has no value"));
            }
            Value::Dict(dict) => {
                self.dicts[dict].extend(pairs.iter().map(|&[key, value]| (key, value)))
            }
            other => {
                return Err(self.malformed(format!("entries are added to {}", other.describe())));
            }
        }
        Ok(())
    }

    fn remember(&mut self, place: u32) -> Step<()> {
        self.memo.insert(place, self.top()?);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Step<()> {
        match self.memo.get(&place) {
            Some(&value) => self.stack.push(value),
            None => return Err(self.malformed(format!("nothing was remembered at {place}"))),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Step<()> {
        let Some(global) = names::global(module, name) else {
            let name = format!("{}.{}", printable(module), printable(name));
            return Err(PickleError::Global { name, opcode: self.opcode(), at: self.at });
        };
        self.stack.push(Value::Global(global));
        Ok(())
    }

    /// A reference to data beside the pickle: `('storage', class, key, device, number of elements)`.
    fn persistent(&mut self) -> Step<()> {
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

    /// A call, which is not made but understood.
    fn reduce(&mut self) -> Step<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(function) = function else {
            return Err(self.malformed(format!("{} is called", function.describe())));
        };
        let Value::Tuple(arguments) = arguments else {
            return Err(self.malformed(format!("a call's arguments are {}", arguments.describe())));
        };
        // At most the eight that are looked at, so that a long tuple costs nothing when it is used again.
        let mut few = [Value::None; 8];
        let arguments = &self.sequences[arguments];
        let count = arguments.len();
        if count > few.len() {
            return Err(self.malformed(format!("a call has {count} arguments")));
        }
        few[..count].copy_from_slice(arguments);
        match (function, &few[..count]) {
            (Global::OrderedDict, []) => self.push_dict(),
            (Global::RebuildTensor, &[storage, offset, shape, strides, _, _, ref more @ ..])
                if more.len() <= 1 =>
            {
                self.no_metadata(more)?;
                self.tensor(storage, None, offset, shape, strides)?;
            }
            (
                Global::RebuildTypedTensor,
                &[storage, offset, shape, strides, _, _, dtype, ref more @ ..],
            ) if more.len() <= 1 => {
                let Value::Global(Global::Dtype(dtype)) = dtype else {
                    return Err(self.malformed(format!("an element type is {}", dtype.describe())));
                };
                self.no_metadata(more)?;
                self.tensor(storage, Some(dtype), offset, shape, strides)?;
            }
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), _, _]) => {
                self.stack.push(tensor)
            }
            _ => return Err(self.malformed("a call has other arguments than PyTorch gives it")),
        }
        Ok(())
    }

    /// The last argument of a tensor, where there is one, may say that its values are to be negated.
    fn no_metadata(&self, metadata: &[Value<'a>]) -> Step<()> {
        match metadata {
            [] | [Value::None] => Ok(()),
            [Value::Dict(dict)] if self.dicts[*dict].is_empty() => Ok(()),
            _ => {
                Err(self
                    .malformed("a tensor has metadata that changes its values (`conj` or `neg`)"))
            }
        }
    }

    /// Attributes for an object. `OrderedDict`s have them (PyTorch's `_metadata`, versions of modules), and they
    /// say nothing about the weights.
    fn build(&mut self) -> Step<()> {
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
    ) -> Step<()> {
        let (Value::Storage(storage), Value::Int(offset)) = (storage, offset) else {
            return Err(self.malformed("a tensor has no storage, or no place in it"));
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
        // An untyped storage counts bytes; from here on it counts elements like the others.
        let bytes = if storage.dtype.is_none() { dtype.bitsize() / 8 } else { 1 };
        let storage = Storage { elements: storage.elements / bytes.max(1), ..storage };
        let offset = self.size(offset)?;
        self.tensors.push(TensorView { storage, dtype, offset, shape, strides });
        self.stack.push(Value::Tensor(self.tensors.len() - 1));
        Ok(())
    }

    fn size(&self, int: i64) -> Step<usize> {
        usize::try_from(int).map_err(|_| self.malformed(format!("{int} is no size")))
    }

    fn sizes(&self, tuple: Value<'a>) -> Step<Vec<usize>> {
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

/// A name from the file, fit for a message: short, and without control characters.
fn printable(name: &str) -> String {
    let mut printable: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        printable.push('…');
    }
    printable
}
