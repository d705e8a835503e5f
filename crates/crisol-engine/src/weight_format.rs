//! Element types of matrices as model files store them.

use std::array;

/// Columns of a block of [`WeightFormat::Mxfp4`].
const MXFP4_COLUMNS: usize = 32;

/// Element types of matrices; the quantised ones are ggml's. A block of `F8_E4M3` is an f32 scale
/// and the elements of a row that it multiplies. `MXFP4` is that of OCP's Microscaling Formats 1.0:
/// 32 E2M1 floats with a power of two, in ggml's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum WeightFormat {
    F32,
    F16,
    Bf16,
    F8E4M3,
    Mxfp4,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl WeightFormat {
    /// All of them.
    pub const ALL: [WeightFormat; 13] = [
        WeightFormat::F32,
        WeightFormat::F16,
        WeightFormat::Bf16,
        WeightFormat::F8E4M3,
        WeightFormat::Mxfp4,
        WeightFormat::Q4_0,
        WeightFormat::Q4_1,
        WeightFormat::Q5_0,
        WeightFormat::Q5_1,
        WeightFormat::Q8_0,
        WeightFormat::Q4K,
        WeightFormat::Q5K,
        WeightFormat::Q6K,
    ];

    /// Its name in ggml or safetensors.
    pub fn name(self) -> &'static str {
        match self {
            WeightFormat::F32 => "F32",
            WeightFormat::F16 => "F16",
            WeightFormat::Bf16 => "BF16",
            WeightFormat::F8E4M3 => "F8_E4M3",
            WeightFormat::Mxfp4 => "MXFP4",
            WeightFormat::Q4_0 => "Q4_0",
            WeightFormat::Q4_1 => "Q4_1",
            WeightFormat::Q5_0 => "Q5_0",
            WeightFormat::Q5_1 => "Q5_1",
            WeightFormat::Q8_0 => "Q8_0",
            WeightFormat::Q4K => "Q4_K",
            WeightFormat::Q5K => "Q5_K",
            WeightFormat::Q6K => "Q6_K",
        }
    }

    /// The format named `name`, ignoring case.
    pub fn from_name(name: &str) -> Option<WeightFormat> {
        WeightFormat::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Columns and bytes of a block in a file.
    pub fn block(self) -> (usize, usize) {
        match self {
            WeightFormat::F32 => (1, 4),
            WeightFormat::F16 | WeightFormat::Bf16 => (1, 2),
            WeightFormat::F8E4M3 => (128, 132),
            WeightFormat::Mxfp4 => (MXFP4_COLUMNS, 17),
            WeightFormat::Q4_0 => (32, 18),
            WeightFormat::Q4_1 => (32, 20),
            WeightFormat::Q5_0 => (32, 22),
            WeightFormat::Q5_1 => (32, 24),
            WeightFormat::Q8_0 => (32, 34),
            WeightFormat::Q4K => (256, 144),
            WeightFormat::Q5K => (256, 176),
            WeightFormat::Q6K => (256, 210),
        }
    }

    /// Bytes of a row of `cols` columns in a file; `None` if they are not whole blocks.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let (columns, bytes) = self.block();
        cols.is_multiple_of(columns).then(|| cols / columns * bytes)
    }

    /// A row of [`WeightFormat::Mxfp4`] from its parts in the files of gpt-oss: `scales` has a byte
    /// for each block (`…_scales`), `codes` 16 (`…_blocks`).
    ///
    /// ```text
    /// byte k in gpt-oss's files    column 2k in the low half, 2k + 1 in the high half
    /// byte k in ggml's blocks      column k in the low half, k + 16 in the high half
    /// ```
    ///
    /// # Panics
    ///
    /// If the parts have different numbers of blocks.
    pub fn mxfp4_row(scales: &[u8], codes: &[u8]) -> Vec<u8> {
        let (codes, rest) = codes.as_chunks::<{ MXFP4_COLUMNS / 2 }>();
        assert!(rest.is_empty() && codes.len() == scales.len(), "codes of {} scales", scales.len());
        let mut row = Vec::with_capacity(scales.len() * WeightFormat::Mxfp4.block().1);
        for (scale, codes) in scales.iter().zip(codes) {
            let code = |column: usize| codes[column / 2] >> (4 * (column % 2)) & 15;
            let bytes: [u8; MXFP4_COLUMNS / 2] =
                array::from_fn(|k| code(k) | code(k + MXFP4_COLUMNS / 2) << 4);
            row.push(*scale);
            row.extend(bytes);
        }
        row
    }
}
