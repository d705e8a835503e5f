//! A reader of the protocol buffer wire format, as far as sentencepiece models use it.
//!
//! It borrows from the input and never allocates, so a false length in a file costs nothing.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

/// One field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// Wire type 0: integers, booleans and enumerations.
    Varint(u64),
    /// Wire type 1.
    Fixed64,
    /// Wire type 2: strings, bytes and messages.
    Bytes(&'a [u8]),
    /// Wire type 5, which holds floats.
    Fixed32([u8; 4]),
}

/// An error in a message; the offset counts from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WireError {
    pub(crate) offset: usize,
    pub(crate) cause: &'static str,
}

/// The fields of one message, in file order. Ends after the first error.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let rest = &self.bytes[self.offset..];
        let taken = rest.get(..length).ok_or("it ends within a field")?;
        self.offset += length;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a varint of more than ten bytes")
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), &'static str> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let length =
                    usize::try_from(self.varint()?).map_err(|_| "it ends within a field")?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            _ => return Err("a field of a wire type that no sentencepiece model has"),
        };
        if key >> 3 == 0 { Err("a field numbered 0") } else { Ok((key >> 3, value)) }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.bytes.len() {
            return None;
        }
        let start = self.offset;
        let field = self.field().map_err(|cause| WireError { offset: start, cause });
        if field.is_err() {
            self.offset = self.bytes.len();
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order() {
        let bytes = [
            0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1D, 0, 0, 0x80, 0x3F, 0x21, 0, 0, 0, 0, 0, 0,
            0, 0,
        ];
        let fields: Vec<_> = Fields::new(&bytes).collect();
        assert_eq!(
            fields,
            [
                Ok((1, Value::Varint(150))),
                Ok((2, Value::Bytes(b"hi"))),
                Ok((3, Value::Fixed32(1f32.to_le_bytes()))),
                Ok((4, Value::Fixed64)),
            ]
        );
    }

    #[test]
    fn truncated_or_overlong_fields_give_one_error_and_end() {
        let huge =
            [0x08, 1, 0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, b'x'];
        let endless = [0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        let cases: [&[u8]; 6] = [&huge, &endless, &[0x08], &[0x1D, 0, 0], &[0x0B], &[0x00, 0x00]];
        for bytes in cases {
            let fields: Vec<_> = Fields::new(bytes).collect();
            assert!(fields.last().is_some_and(Result::is_err), "{bytes:?}");
            assert_eq!(fields.iter().filter(|field| field.is_err()).count(), 1, "{bytes:?}");
        }
        assert_eq!(Fields::new(&huge).last().unwrap().unwrap_err().offset, 2);
    }
}
