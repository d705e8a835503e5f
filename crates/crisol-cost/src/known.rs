//! Published models by name, from their public `config.json` files.

use crate::{Attention, Block, FeedForward, Head, ModelShape, Span};

/// A published model.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownModel {
    /// Name on the command line.
    pub name: &'static str,
    /// Repository on the Hugging Face hub.
    pub source: &'static str,
    /// Context length in tokens.
    pub context: usize,
    /// Shape.
    pub shape: ModelShape,
}

/// The QK-norm of a family, which adds vectors to the two norms of a block.
#[derive(Clone, Copy)]
enum QkNorm {
    /// None (Llama).
    None,
    /// Over all heads together (OLMo-2).
    Whole,
    /// Per head (Qwen3).
    Heads,
}

/// Hidden size, layers, query heads, KV heads, head width, inner width of the MLP, vocabulary.
type Sizes = [usize; 7];

fn dense(
    [hidden, layers, heads, kv_heads, head_dim, inner, vocab]: Sizes,
    head: Head,
    norm: QkNorm,
) -> ModelShape {
    let norms = match norm {
        QkNorm::None => 0,
        QkNorm::Whole => (heads + kv_heads) * head_dim,
        QkNorm::Heads => 2 * head_dim,
    };
    let block = Block {
        attention: Attention::Grouped { heads, kv_heads, head_dim, span: None },
        feed_forward: FeedForward::Dense { inner },
        vectors: 2 * hidden + norms,
    };
    with_blocks(hidden, vocab, head, vec![(layers, block)])
}

/// Blocks between an embedding table and a last `RMSNorm`.
fn with_blocks(hidden: usize, vocab: usize, head: Head, blocks: Vec<(usize, Block)>) -> ModelShape {
    ModelShape { hidden, vocab, head, blocks, positions: 0, last_norm: hidden, adapter: 0 }
}

/// A shape whose layers have a window, all but every `period`th.
fn windowed(shape: &ModelShape, window: usize, period: usize) -> ModelShape {
    let blocks = shape.blocks.iter().flat_map(|&(layers, block)| {
        let local = Block {
            attention: match block.attention {
                Attention::Grouped { heads, kv_heads, head_dim, .. } => {
                    let span = Some(Span::Window(window));
                    Attention::Grouped { heads, kv_heads, head_dim, span }
                }
                latent @ Attention::Latent { .. } => latent,
            },
            ..block
        };
        [(layers - layers / period, local), (layers / period, block)]
    });
    ModelShape { blocks: blocks.filter(|(count, _)| *count > 0).collect(), ..shape.clone() }
}

/// GPT-2 of a hidden size, with heads of 64.
fn gpt2(hidden: usize, layers: usize) -> ModelShape {
    let (heads, head_dim) = (hidden / 64, 64);
    let block = Block {
        attention: Attention::Grouped { heads, kv_heads: heads, head_dim, span: None },
        feed_forward: FeedForward::Ungated { inner: 4 * hidden },
        // Two norms with biases, and the biases of four matrices.
        vectors: 4 * hidden + (3 + 1 + 4 + 1) * hidden,
    };
    ModelShape {
        positions: 1024,
        last_norm: 2 * hidden,
        ..with_blocks(hidden, 50_257, Head::Tied, vec![(layers, block)])
    }
}

/// A mixture in every layer, `per_token` of `experts` with an inner width of their own.
fn mixture(sizes: Sizes, experts: usize, per_token: usize, norm: QkNorm) -> ModelShape {
    let mut shape = dense(sizes, Head::Untied, norm);
    let inner = sizes[5];
    for (_, block) in &mut shape.blocks {
        block.feed_forward = FeedForward::Mixture { experts, per_token, inner, shared: 0 };
    }
    shape
}

/// gpt-oss: windows in every second layer, and biases of all projections.
fn gpt_oss(layers: usize, experts: usize) -> ModelShape {
    let (hidden, heads, kv_heads, head_dim) = (2880, 64, 8, 64);
    let sizes = [hidden, layers, heads, kv_heads, head_dim, hidden, 201_088];
    let mut shape = mixture(sizes, experts, 4, QkNorm::None);
    let (_, mut block) = shape.blocks[0];
    // Of queries, keys and values, the output, the router, and gate, up and down of the experts.
    let biases = (heads + 2 * kv_heads) * head_dim + hidden + experts + 3 * experts * hidden;
    // Each query head has a sink.
    block.vectors += biases + heads;
    let span = Some(Span::Window(128));
    let local =
        Block { attention: Attention::Grouped { heads, kv_heads, head_dim, span }, ..block };
    shape.blocks = vec![(layers / 2, local), (layers / 2, block)];
    shape
}

/// Gemma 2 or 3, with four norms in a block: every `period`-th layer attends to everything, the
/// others to a window.
fn gemma(
    [hidden, layers, heads, kv_heads, head_dim, inner, vocab]: Sizes,
    [window, period]: [usize; 2],
    norm: QkNorm,
) -> ModelShape {
    let mut shape =
        dense([hidden, layers, heads, kv_heads, head_dim, inner, vocab], Head::Tied, norm);
    let block = |span| Block {
        attention: Attention::Grouped { heads, kv_heads, head_dim, span },
        vectors: shape.blocks[0].1.vectors + 2 * hidden,
        ..shape.blocks[0].1
    };
    let global = layers / period;
    shape.blocks =
        vec![(layers - global, block(Some(Span::Window(window)))), (global, block(None))];
    shape
}

/// Llama 4's text model: 48 layers, every fourth with full attention, `dense_layers` of them
/// without experts.
fn llama4(experts: usize, dense_layers: usize) -> ModelShape {
    let hidden = 5120;
    let block = |span, mixture| Block {
        attention: Attention::Grouped { heads: 40, kv_heads: 8, head_dim: 128, span },
        feed_forward: if mixture {
            FeedForward::Mixture { experts, per_token: 1, inner: 8192, shared: 8192 }
        } else {
            FeedForward::Dense { inner: 16_384 }
        },
        vectors: 2 * hidden,
    };
    // In Maverick every second layer is a mixture, including all layers with full attention.
    let blocks = vec![
        (36 - dense_layers, block(Some(Span::Chunk(8192)), true)),
        (12, block(None, true)),
        (dense_layers, block(Some(Span::Chunk(8192)), false)),
    ];
    let blocks = blocks.into_iter().filter(|(count, _)| *count > 0).collect();
    with_blocks(hidden, 202_048, Head::Untied, blocks)
}

fn deepseek_v3() -> ModelShape {
    let (hidden, experts, query_rank, kv_rank) = (7168, 256, 1536, 512);
    let attention = Attention::Latent {
        heads: 128,
        query_rank: Some(query_rank),
        kv_rank,
        unrotated: 128,
        rotated: 64,
        value_dim: 128,
    };
    let vectors = 2 * hidden + query_rank + kv_rank;
    let dense = Block { attention, feed_forward: FeedForward::Dense { inner: 18_432 }, vectors };
    let mixture = Block {
        attention,
        feed_forward: FeedForward::Mixture { experts, per_token: 8, inner: 2048, shared: 2048 },
        // Plus the router's correction bias.
        vectors: vectors + experts,
    };
    with_blocks(hidden, 129_280, Head::Untied, vec![(3, dense), (58, mixture)])
}

/// All known models.
pub fn models() -> Vec<KnownModel> {
    use Head::{Tied, Untied};
    let llama = |name, source, context, sizes, head| KnownModel {
        name,
        source,
        context,
        shape: dense(sizes, head, QkNorm::None),
    };
    let olmo2 = |name, source, sizes| KnownModel {
        name,
        source,
        context: 4096,
        shape: dense(sizes, Untied, QkNorm::Whole),
    };
    let qwen3 = |name, source, sizes, head| KnownModel {
        name,
        source,
        context: 40_960,
        shape: dense(sizes, head, QkNorm::Heads),
    };
    let olmo3 = |name, source, sizes| KnownModel {
        name,
        source,
        context: 65_536,
        shape: windowed(&dense(sizes, Untied, QkNorm::Whole), 4096, 4),
    };
    let gpt2_of = |name, source, hidden, layers| KnownModel {
        name,
        source,
        context: 1024,
        shape: gpt2(hidden, layers),
    };
    let mixed = |name, source, context, shape| KnownModel { name, source, context, shape };
    let gemma2 = |name, source, sizes| KnownModel {
        name,
        source,
        context: 8192,
        shape: gemma(sizes, [4096, 2], QkNorm::None),
    };
    let gemma3 = |name, source, context, window, sizes| KnownModel {
        name,
        source,
        context,
        shape: gemma(sizes, [window, 6], QkNorm::Heads),
    };
    vec![
        llama(
            "smollm2-135m",
            "HuggingFaceTB/SmolLM2-135M",
            8192,
            [576, 30, 9, 3, 64, 1536, 49_152],
            Tied,
        ),
        llama(
            "smollm2-360m",
            "HuggingFaceTB/SmolLM2-360M",
            8192,
            [960, 32, 15, 5, 64, 2560, 49_152],
            Tied,
        ),
        llama(
            "smollm2-1.7b",
            "HuggingFaceTB/SmolLM2-1.7B",
            8192,
            [2048, 24, 32, 32, 64, 8192, 49_152],
            Tied,
        ),
        llama(
            "tinyllama-1.1b",
            "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
            2048,
            [2048, 22, 32, 4, 64, 5632, 32_000],
            Untied,
        ),
        llama(
            "llama-2-7b",
            "meta-llama/Llama-2-7b-hf",
            4096,
            [4096, 32, 32, 32, 128, 11_008, 32_000],
            Untied,
        ),
        llama(
            "llama-2-13b",
            "meta-llama/Llama-2-13b-hf",
            4096,
            [5120, 40, 40, 40, 128, 13_824, 32_000],
            Untied,
        ),
        llama(
            "llama-2-70b",
            "meta-llama/Llama-2-70b-hf",
            4096,
            [8192, 80, 64, 8, 128, 28_672, 32_000],
            Untied,
        ),
        llama(
            "llama-3-8b",
            "meta-llama/Meta-Llama-3-8B",
            8192,
            [4096, 32, 32, 8, 128, 14_336, 128_256],
            Untied,
        ),
        llama(
            "llama-3-70b",
            "meta-llama/Meta-Llama-3-70B",
            8192,
            [8192, 80, 64, 8, 128, 28_672, 128_256],
            Untied,
        ),
        llama(
            "llama-3.1-405b",
            "meta-llama/Llama-3.1-405B",
            131_072,
            [16_384, 126, 128, 8, 128, 53_248, 128_256],
            Untied,
        ),
        llama(
            "llama-3.2-1b",
            "meta-llama/Llama-3.2-1B",
            131_072,
            [2048, 16, 32, 8, 64, 8192, 128_256],
            Tied,
        ),
        llama(
            "llama-3.2-3b",
            "meta-llama/Llama-3.2-3B",
            131_072,
            [3072, 28, 24, 8, 128, 8192, 128_256],
            Tied,
        ),
        olmo2("olmo-2-1b", "allenai/OLMo-2-0425-1B", [2048, 16, 16, 16, 128, 8192, 100_352]),
        olmo2("olmo-2-7b", "allenai/OLMo-2-1124-7B", [4096, 32, 32, 32, 128, 11_008, 100_352]),
        olmo2("olmo-2-13b", "allenai/OLMo-2-1124-13B", [5120, 40, 40, 40, 128, 13_824, 100_352]),
        olmo2("olmo-2-32b", "allenai/OLMo-2-0325-32B", [5120, 64, 40, 8, 128, 27_648, 100_352]),
        qwen3("qwen3-0.6b", "Qwen/Qwen3-0.6B", [1024, 28, 16, 8, 128, 3072, 151_936], Tied),
        qwen3("qwen3-1.7b", "Qwen/Qwen3-1.7B", [2048, 28, 16, 8, 128, 6144, 151_936], Tied),
        qwen3("qwen3-4b", "Qwen/Qwen3-4B", [2560, 36, 32, 8, 128, 9728, 151_936], Tied),
        qwen3("qwen3-8b", "Qwen/Qwen3-8B", [4096, 36, 32, 8, 128, 12_288, 151_936], Untied),
        qwen3("qwen3-14b", "Qwen/Qwen3-14B", [5120, 40, 40, 8, 128, 17_408, 151_936], Untied),
        qwen3("qwen3-32b", "Qwen/Qwen3-32B", [5120, 64, 64, 8, 128, 25_600, 151_936], Untied),
        llama(
            "smollm3-3b",
            "HuggingFaceTB/SmolLM3-3B",
            65_536,
            [2048, 36, 16, 4, 128, 11_008, 128_256],
            Tied,
        ),
        llama(
            "granite-3.3-2b",
            "ibm-granite/granite-3.3-2b-base",
            131_072,
            [2048, 40, 32, 8, 64, 8192, 49_159],
            Tied,
        ),
        llama(
            "ernie-4.5-0.3b",
            "baidu/ERNIE-4.5-0.3B-PT",
            131_072,
            [1024, 18, 16, 2, 128, 3072, 103_424],
            Tied,
        ),
        olmo3("olmo-3-7b", "allenai/Olmo-3-1025-7B", [4096, 32, 32, 32, 128, 11_008, 100_278]),
        olmo3("olmo-3-32b", "allenai/Olmo-3-1125-32B", [5120, 64, 40, 8, 128, 27_648, 100_278]),
        KnownModel {
            name: "phi-3-mini",
            source: "microsoft/Phi-3-mini-4k-instruct",
            context: 4096,
            shape: windowed(
                &dense([3072, 32, 32, 32, 96, 8192, 32_064], Untied, QkNorm::None),
                2047,
                usize::MAX,
            ),
        },
        KnownModel {
            name: "phi-4-mini",
            source: "microsoft/Phi-4-mini-instruct",
            context: 131_072,
            shape: windowed(
                &dense([3072, 32, 24, 8, 128, 8192, 200_064], Tied, QkNorm::None),
                262_144,
                usize::MAX,
            ),
        },
        llama("phi-4", "microsoft/phi-4", 16_384, [5120, 40, 40, 10, 128, 17_920, 100_352], Untied),
        gpt2_of("gpt2", "openai-community/gpt2", 768, 12),
        gpt2_of("gpt2-medium", "openai-community/gpt2-medium", 1024, 24),
        gpt2_of("gpt2-large", "openai-community/gpt2-large", 1280, 36),
        gpt2_of("gpt2-xl", "openai-community/gpt2-xl", 1600, 48),
        mixed(
            "qwen3-30b-a3b",
            "Qwen/Qwen3-30B-A3B",
            40_960,
            mixture([2048, 48, 32, 4, 128, 768, 151_936], 128, 8, QkNorm::Heads),
        ),
        mixed(
            "qwen3-235b-a22b",
            "Qwen/Qwen3-235B-A22B",
            40_960,
            mixture([4096, 94, 64, 4, 128, 1536, 151_936], 128, 8, QkNorm::Heads),
        ),
        mixed(
            "mixtral-8x7b",
            "mistralai/Mixtral-8x7B-v0.1",
            32_768,
            mixture([4096, 32, 32, 8, 128, 14_336, 32_000], 8, 2, QkNorm::None),
        ),
        mixed(
            "mixtral-8x22b",
            "mistralai/Mixtral-8x22B-v0.1",
            65_536,
            mixture([6144, 56, 48, 8, 128, 16_384, 32_000], 8, 2, QkNorm::None),
        ),
        mixed("gpt-oss-20b", "openai/gpt-oss-20b", 131_072, gpt_oss(24, 32)),
        mixed("gpt-oss-120b", "openai/gpt-oss-120b", 131_072, gpt_oss(36, 128)),
        gemma2("gemma-2-2b", "google/gemma-2-2b", [2304, 26, 8, 4, 256, 9216, 256_000]),
        gemma2("gemma-2-9b", "google/gemma-2-9b", [3584, 42, 16, 8, 256, 14_336, 256_000]),
        gemma2("gemma-2-27b", "google/gemma-2-27b", [4608, 46, 32, 16, 128, 36_864, 256_000]),
        gemma3(
            "gemma-3-270m",
            "google/gemma-3-270m",
            32_768,
            512,
            [640, 18, 4, 1, 256, 2048, 262_144],
        ),
        gemma3(
            "gemma-3-1b",
            "google/gemma-3-1b-pt",
            32_768,
            512,
            [1152, 26, 4, 1, 256, 6912, 262_144],
        ),
        gemma3(
            "gemma-3-4b",
            "google/gemma-3-4b-pt",
            131_072,
            1024,
            [2560, 34, 8, 4, 256, 10_240, 262_208],
        ),
        gemma3(
            "gemma-3-12b",
            "google/gemma-3-12b-pt",
            131_072,
            1024,
            [3840, 48, 16, 8, 256, 15_360, 262_208],
        ),
        gemma3(
            "gemma-3-27b",
            "google/gemma-3-27b-pt",
            131_072,
            1024,
            [5376, 62, 32, 16, 128, 21_504, 262_208],
        ),
        KnownModel {
            name: "llama-4-scout",
            source: "meta-llama/Llama-4-Scout-17B-16E",
            context: 262_144,
            shape: llama4(16, 0),
        },
        KnownModel {
            name: "llama-4-maverick",
            source: "meta-llama/Llama-4-Maverick-17B-128E",
            context: 262_144,
            shape: llama4(128, 24),
        },
        KnownModel {
            name: "deepseek-v3",
            source: "deepseek-ai/DeepSeek-V3",
            context: 163_840,
            shape: deepseek_v3(),
        },
    ]
}

/// Finds a model by name.
pub fn named(name: &str) -> Option<KnownModel> {
    models().into_iter().find(|known| known.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(name: &str) -> ModelShape {
        named(name).expect("a known model").shape
    }

    /// Parameter counts from the models' pages on the hub (from safetensors headers).
    #[test]
    fn published_parameters() {
        for (name, parameters) in [
            ("smollm2-135m", 134_515_008_u64),
            ("smollm2-360m", 361_821_120),
            ("smollm2-1.7b", 1_711_376_384),
            ("tinyllama-1.1b", 1_100_048_384),
            ("llama-2-7b", 6_738_415_616),
            ("llama-2-13b", 13_015_864_320),
            ("llama-2-70b", 68_976_648_192),
            ("llama-3-8b", 8_030_261_248),
            ("llama-3-70b", 70_553_706_496),
            ("llama-3.1-405b", 405_853_388_800),
            ("llama-3.2-1b", 1_235_814_400),
            ("llama-3.2-3b", 3_212_749_824),
            ("olmo-2-1b", 1_484_916_736),
            ("olmo-2-7b", 7_298_617_344),
            ("olmo-2-13b", 13_716_198_400),
            ("olmo-2-32b", 32_234_279_936),
            ("qwen3-0.6b", 596_049_920),
            ("qwen3-1.7b", 1_720_574_976),
            ("qwen3-4b", 4_022_468_096),
            ("qwen3-8b", 8_190_735_360),
            ("qwen3-14b", 14_768_307_200),
            ("qwen3-32b", 32_762_123_264),
            ("smollm3-3b", 3_075_098_624),
            ("granite-3.3-2b", 2_533_539_840),
            ("ernie-4.5-0.3b", 360_748_032),
            ("olmo-3-7b", 7_298_011_136),
            ("olmo-3-32b", 32_233_522_176),
            ("phi-3-mini", 3_821_079_552),
            ("phi-4-mini", 3_836_021_760),
            ("phi-4", 14_659_507_200),
            ("gpt2", 124_439_808),
            ("gpt2-medium", 354_823_168),
            ("gpt2-large", 774_030_080),
            ("gpt2-xl", 1_557_611_200),
            ("gemma-2-2b", 2_614_341_888),
            ("gemma-2-9b", 9_241_705_984),
            ("gemma-2-27b", 27_227_128_320),
            ("gemma-3-270m", 268_098_176),
            ("gemma-3-1b", 999_885_952),
            // Without the image encoder, as transformers 5.23 counts them.
            ("gemma-3-4b", 3_880_263_168),
            ("gemma-3-12b", 11_766_034_176),
            ("gemma-3-27b", 27_009_346_304),
        ] {
            assert_eq!(shape(name).parameters().total(), parameters as f64, "{name}");
        }
    }

    /// Mixtures as transformers 5.23 counts them: without Llama 4's image encoder (Meta's 109 B and
    /// 400 B include it) and without DeepSeek-V3's multi-token-prediction layer, but with the
    /// correction biases of its routers.
    #[test]
    fn published_mixtures() {
        for (name, parameters, active) in [
            ("qwen3-30b-a3b", 30_532_122_624_u64, 3.35e9),
            ("qwen3-235b-a22b", 235_093_634_560, 22.2e9),
            ("mixtral-8x7b", 46_702_792_704, 12.9e9),
            ("mixtral-8x22b", 140_620_634_112, 39.1e9),
            // OpenAI counts 3.6 B and 5.1 B, without the embedding table.
            ("gpt-oss-20b", 20_914_757_184, 3.61e9 + 2880.0 * 201_088.0),
            ("gpt-oss-120b", 116_829_156_672, 5.13e9 + 2880.0 * 201_088.0),
            ("llama-4-scout", 107_769_861_120, 17e9),
            ("llama-4-maverick", 400_711_848_960, 17e9),
            ("deepseek-v3", 671_026_404_352 + 58 * 256, 37e9),
        ] {
            let shape = shape(name);
            assert_eq!(shape.parameters().total(), parameters as f64, "{name}");
            let share = shape.active_parameters().total() / active;
            assert!((share - 1.0).abs() < 0.02, "{name}: {share}");
        }
    }
}
