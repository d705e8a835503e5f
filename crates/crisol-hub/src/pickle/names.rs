//! The Python names that a PyTorch pickle may reference, and the names of opcodes.

use safetensors::Dtype;

/// A supported Python name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    /// Builds a tensor from a typed storage.
    RebuildTensor,
    /// Builds a tensor from an untyped storage, for element types newer than the typed storages.
    RebuildTypedTensor,
    RebuildParameter,
    /// A storage class; `None` for the untyped one.
    Storage(Option<Dtype>),
    Dtype(Dtype),
}

/// The supported names.
pub(super) fn global(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTypedTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch.storage", "UntypedStorage") => Global::Storage(None),
        ("torch", name) => match name.strip_suffix("Storage") {
            Some(storage) => Global::Storage(Some(storage_type(storage)?)),
            None => Global::Dtype(element_type(name)?),
        },
        _ => return None,
    })
}

/// The element type of `torch.<name>Storage`.
fn storage_type(name: &str) -> Option<Dtype> {
    Some(match name {
        "Float" => Dtype::F32,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::BF16,
        "Double" => Dtype::F64,
        "Long" => Dtype::I64,
        "Int" => Dtype::I32,
        "Short" => Dtype::I16,
        "Char" => Dtype::I8,
        "Byte" => Dtype::U8,
        "Bool" => Dtype::BOOL,
        "ComplexFloat" => Dtype::C64,
        _ => return None,
    })
}

/// The element type that PyTorch calls `torch.<name>`.
fn element_type(name: &str) -> Option<Dtype> {
    Some(match name {
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float64" => Dtype::F64,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        "uint8" => Dtype::U8,
        "bool" => Dtype::BOOL,
        "complex64" => Dtype::C64,
        _ => return None,
    })
}

/// The name of an opcode in Python's `pickletools`.
pub(super) fn opcode(code: u8) -> Option<&'static str> {
    OPCODES.iter().find(|(known, _)| *known == code).map(|(_, name)| *name)
}

/// Opcodes and their names in Python's `pickletools`; those after the bare `//` are refused.
const OPCODES: &[(u8, &str)] = &[
    (b'.', "STOP"),
    (b'(', "MARK"),
    (b'N', "NONE"),
    (b'J', "BININT"),
    (b'K', "BININT1"),
    (b'M', "BININT2"),
    (0x8a, "LONG1"),
    (b'G', "BINFLOAT"),
    (b'X', "BINUNICODE"),
    (0x8c, "SHORT_BINUNICODE"),
    (0x8d, "BINUNICODE8"),
    (0x88, "NEWTRUE"),
    (0x89, "NEWFALSE"),
    (b')', "EMPTY_TUPLE"),
    (b't', "TUPLE"),
    (0x85, "TUPLE1"),
    (0x86, "TUPLE2"),
    (0x87, "TUPLE3"),
    (b']', "EMPTY_LIST"),
    (b'a', "APPEND"),
    (b'e', "APPENDS"),
    (b'}', "EMPTY_DICT"),
    (b's', "SETITEM"),
    (b'u', "SETITEMS"),
    (b'c', "GLOBAL"),
    (0x93, "STACK_GLOBAL"),
    (b'R', "REDUCE"),
    (b'b', "BUILD"),
    (b'Q', "BINPERSID"),
    (b'q', "BINPUT"),
    (b'r', "LONG_BINPUT"),
    (0x94, "MEMOIZE"),
    (b'h', "BINGET"),
    (b'j', "LONG_BINGET"),
    (0x80, "PROTO"),
    (0x95, "FRAME"),
    //
    (b'i', "INST"),
    (b'o', "OBJ"),
    (0x81, "NEWOBJ"),
    (0x92, "NEWOBJ_EX"),
    (0x82, "EXT1"),
    (0x83, "EXT2"),
    (0x84, "EXT4"),
    (b'P', "PERSID"),
    (b'I', "INT"),
    (b'L', "LONG"),
    (0x8b, "LONG4"),
    (b'F', "FLOAT"),
    (b'S', "STRING"),
    (b'T', "BINSTRING"),
    (b'U', "SHORT_BINSTRING"),
    (b'V', "UNICODE"),
    (b'B', "BINBYTES"),
    (b'C', "SHORT_BINBYTES"),
    (0x8e, "BINBYTES8"),
    (0x96, "BYTEARRAY8"),
    (0x97, "NEXT_BUFFER"),
    (0x98, "READONLY_BUFFER"),
    (b'l', "LIST"),
    (b'd', "DICT"),
    (0x8f, "EMPTY_SET"),
    (0x90, "ADDITEMS"),
    (0x91, "FROZENSET"),
    (b'p', "PUT"),
    (b'g', "GET"),
    (b'0', "POP"),
    (b'1', "POP_MARK"),
    (b'2', "DUP"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// PyTorch names element types by their bits.
    #[test]
    fn element_types_have_the_bits_of_their_names() {
        let names = [
            "float32",
            "float16",
            "bfloat16",
            "float64",
            "int64",
            "int32",
            "int16",
            "int8",
            "uint64",
            "uint32",
            "uint16",
            "uint8",
            "complex64",
        ];
        for name in names {
            let bits = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
            let element = element_type(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(element.bitsize().to_string(), bits, "{name}");
        }
        let eight = ["bool", "float8_e4m3fn", "float8_e5m2"];
        assert!(eight.iter().all(|name| element_type(name).is_some_and(|of| of.bitsize() == 8)));
        assert_ne!(element_type("float16"), element_type("bfloat16"));
        assert_ne!(element_type("float8_e4m3fn"), element_type("float8_e5m2"));
        assert_eq!(element_type("float128"), None);
    }
}
