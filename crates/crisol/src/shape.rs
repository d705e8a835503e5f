//! Shapes of models on the command line: `XS`, `S,T=2048`, `d=256,L=6,H=8`.

use std::str::FromStr;

use crisol_engine::{Device, Params};
use crisol_model::{Architecture, Config, Head, Model};
use serde::Serialize;

use crate::error::CliError;

/// The shape of a model and of its batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Shape {
    pub(crate) d: usize,
    #[serde(rename = "L")]
    pub(crate) layers: usize,
    #[serde(rename = "H")]
    pub(crate) heads: usize,
    pub(crate) kv: usize,
    pub(crate) ff: usize,
    #[serde(rename = "V")]
    pub(crate) vocab: usize,
    #[serde(rename = "T")]
    pub(crate) tokens: usize,
    #[serde(rename = "B")]
    pub(crate) batch: usize,
    pub(crate) tied: bool,
}

pub(crate) const XS: Shape = Shape {
    d: 128,
    layers: 4,
    heads: 4,
    kv: 4,
    ff: 352,
    vocab: 2048,
    tokens: 128,
    batch: 32,
    tied: true,
};
pub(crate) const S: Shape = Shape {
    d: 256,
    layers: 6,
    heads: 8,
    kv: 8,
    ff: 704,
    vocab: 4096,
    tokens: 256,
    batch: 16,
    tied: true,
};
pub(crate) const M: Shape = Shape {
    d: 768,
    layers: 12,
    heads: 12,
    kv: 12,
    ff: 2048,
    vocab: 32_000,
    tokens: 512,
    batch: 2,
    tied: false,
};
/// That of Llama 3.2 1B.
const ONE_B: Shape = Shape {
    d: 2048,
    layers: 16,
    heads: 32,
    kv: 8,
    ff: 8192,
    vocab: 128_256,
    tokens: 2048,
    batch: 1,
    tied: true,
};

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let mut shape = XS;
        let mut kv = None;
        let mut heads = None;
        for (i, part) in text.split(',').map(str::trim).enumerate() {
            match (i, part.split_once('=')) {
                (0, None) => {
                    shape = match part {
                        "XS" => XS,
                        "S" => S,
                        "M" => M,
                        "1B" => ONE_B,
                        _ => {
                            return Err(
                                "a shape starts with XS, S, M or 1B, or is a list such as \
                                 d=256,L=6"
                                    .into(),
                            );
                        }
                    };
                }
                (_, Some(("head", "tied"))) => shape.tied = true,
                (_, Some(("head", "untied"))) => shape.tied = false,
                (_, Some((key, value))) => {
                    let value: usize =
                        value.parse().map_err(|_| format!("{key} needs a whole number"))?;
                    match key {
                        "d" => shape.d = value,
                        "L" => shape.layers = value,
                        "H" => heads = Some(value),
                        "kv" => kv = Some(value),
                        "ff" => shape.ff = value,
                        "V" => shape.vocab = value,
                        "T" => shape.tokens = value,
                        "B" => shape.batch = value,
                        _ => {
                            return Err(format!(
                                "{key:?} is none of d, L, H, kv, ff, V, T, B and head"
                            ));
                        }
                    }
                }
                _ => return Err(format!("{part:?} is not KEY=VALUE, such as d=256")),
            }
        }
        shape.heads = heads.unwrap_or(shape.heads);
        shape.kv = kv.or(heads).unwrap_or(shape.kv);
        if shape.tokens < 2 || shape.batch == 0 {
            return Err("a batch needs a document of two tokens".into());
        }
        if shape.heads == 0 || !shape.d.is_multiple_of(shape.heads) {
            return Err(format!(
                "{} heads cannot share a width of {}; make d a multiple of H",
                shape.heads, shape.d
            ));
        }
        shape.config().validate().map_err(|error| error.to_string())?;
        Ok(shape)
    }
}

impl Shape {
    pub(crate) fn config(&self) -> Config {
        let heads = self.heads;
        Config {
            head: Head::Language { tied: self.tied },
            num_key_value_heads: self.kv,
            max_position_embeddings: self.tokens,
            ..Config::new(Architecture::Llama, self.vocab, self.d, self.layers, heads, self.ff)
        }
    }

    pub(crate) fn model(&self, device: &Device) -> Result<(Model, Params), CliError> {
        Ok(Model::init(self.config(), device, 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_named_or_spelled_out() {
        assert_eq!("M".parse(), Ok(M));
        assert_eq!("d=128,L=4".parse(), Ok(XS));
        let long: Shape = "S,T=2048,B=2,kv=2,head=untied".parse().unwrap();
        assert_eq!(long, Shape { tokens: 2048, batch: 2, kv: 2, tied: false, ..S });
        for wrong in [
            "", "L", "S,M", "S,T", "S,T=x", "S,x=1", "S,B=0", "S,T=1", "H=0", "H=3", "d=-1",
            "head=no",
        ] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
    }
}
