//! The shape of a decoder-only transformer, its parameters and its FLOPs per token.

use crate::units::Flops;

/// The shape of a model, as far as it determines cost.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Output head.
    pub head: Head,
    /// Distinct blocks with the number of layers of each.
    pub blocks: Vec<(usize, Block)>,
    /// Rows of a table of learned positions; 0: none.
    pub positions: usize,
    /// Parameters of the last norm.
    pub last_norm: usize,
    /// Parameters of adapters over frozen weights; 0: every weight is trained.
    pub adapter: usize,
}

/// The output head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Logits, tied to the embedding table.
    Tied,
    /// Logits, with a matrix of its own.
    Untied,
    /// One number per position (reward or value model).
    Scalar,
}

/// The shape of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Attention.
    pub attention: Attention,
    /// Feed-forward layer.
    pub feed_forward: FeedForward,
    /// Parameters outside of matrices: norms, biases, routers' correction biases.
    pub vectors: usize,
}

/// What a query sees of a long document, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The tokens of its chunk before it.
    Chunk(usize),
    /// So many tokens: itself and those just before it.
    Window(usize),
}

/// Attention of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Grouped-query attention (arXiv:2305.13245).
    Grouped {
        /// Query heads.
        heads: usize,
        /// KV heads.
        kv_heads: usize,
        /// Width of a head.
        head_dim: usize,
        /// What a query sees; `None`: everything before it.
        span: Option<Span>,
    },
    /// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).
    Latent {
        /// Query heads.
        heads: usize,
        /// Rank of the query projection; `None`: full rank.
        query_rank: Option<usize>,
        /// Width of the latent vector.
        kv_rank: usize,
        /// Width of the unrotated part of a query or key.
        unrotated: usize,
        /// Width of the rotated part; the rotated key is shared by all heads.
        rotated: usize,
        /// Width of a value.
        value_dim: usize,
    },
}

/// The feed-forward layer of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// A gated MLP with three matrices (arXiv:2002.05202).
    Dense {
        /// Width inside.
        inner: usize,
    },
    /// An MLP with two matrices, without a gate.
    Ungated {
        /// Width inside.
        inner: usize,
    },
    /// A mixture of gated experts.
    Mixture {
        /// Routed experts.
        experts: usize,
        /// Experts selected per token.
        per_token: usize,
        /// Inner width of an expert.
        inner: usize,
        /// Inner width of the shared experts together; 0: none.
        shared: usize,
    },
}

/// A number for each part of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// Embedding table.
    pub embedding: f64,
    /// Projections of the attention.
    pub projections: f64,
    /// Attention scores and weighted values; no parameters.
    pub attention: f64,
    /// Dense feed-forward layers and shared experts.
    pub feed_forward: f64,
    /// Routed experts.
    pub experts: f64,
    /// Routers.
    pub router: f64,
    /// Norms, biases and other vectors.
    pub vectors: f64,
    /// Output matrix; 0 parameters if tied.
    pub head: f64,
}

impl Parts {
    /// All parts with their names (the JSON keys).
    pub fn named(&self) -> [(&'static str, f64); 8] {
        [
            ("embedding", self.embedding),
            ("projections", self.projections),
            ("attention", self.attention),
            ("feed_forward", self.feed_forward),
            ("experts", self.experts),
            ("router", self.router),
            ("vectors", self.vectors),
            ("head", self.head),
        ]
    }

    /// Applies `f` to each part.
    pub(crate) fn map(self, f: impl Fn(f64) -> f64) -> Parts {
        self.zip_with(Parts::default(), |a, _| f(a))
    }

    /// Combines each part with its counterpart.
    pub(crate) fn zip_with(self, other: Parts, f: impl Fn(f64, f64) -> f64) -> Parts {
        Parts {
            embedding: f(self.embedding, other.embedding),
            projections: f(self.projections, other.projections),
            attention: f(self.attention, other.attention),
            feed_forward: f(self.feed_forward, other.feed_forward),
            experts: f(self.experts, other.experts),
            router: f(self.router, other.router),
            vectors: f(self.vectors, other.vectors),
            head: f(self.head, other.head),
        }
    }

    /// The sum of all parts.
    pub fn total(&self) -> f64 {
        self.named().iter().map(|(_, number)| number).sum()
    }
}

impl Attention {
    /// Rows and columns of its matrices.
    fn matrices(&self, hidden: usize) -> Vec<[usize; 2]> {
        match *self {
            Attention::Grouped { heads, kv_heads, head_dim, .. } => {
                let [queries, keys] = [heads * head_dim, kv_heads * head_dim];
                vec![[queries, hidden], [keys, hidden], [keys, hidden], [hidden, queries]]
            }
            Attention::Latent { heads, query_rank, kv_rank, unrotated, rotated, value_dim } => {
                let queries = heads * (unrotated + rotated);
                let mut matrices = match query_rank {
                    None => vec![[queries, hidden]],
                    Some(rank) => vec![[rank, hidden], [queries, rank]],
                };
                matrices.extend([
                    [kv_rank + rotated, hidden],
                    [heads * (unrotated + value_dim), kv_rank],
                    [hidden, heads * value_dim],
                ]);
                matrices
            }
        }
    }

    /// Widths of queries and values over all heads: multiplications of a token per attended
    /// position.
    fn score_width(&self) -> usize {
        match *self {
            Attention::Grouped { heads, head_dim, .. } => 2 * heads * head_dim,
            Attention::Latent { heads, unrotated, rotated, value_dim, .. } => {
                heads * (unrotated + rotated + value_dim)
            }
        }
    }

    /// Cached values per token.
    fn cached_per_token(&self) -> usize {
        match *self {
            Attention::Grouped { kv_heads, head_dim, .. } => 2 * kv_heads * head_dim,
            Attention::Latent { kv_rank, rotated, .. } => kv_rank + rotated,
        }
    }

    /// Mean number of positions attended by a token of a document of `length` tokens, without
    /// causal masking: the convention of published figures.
    fn mean_attended(&self, length: f64) -> f64 {
        match *self {
            Attention::Grouped { span: Some(Span::Window(window)), .. } => {
                length.min(window as f64)
            }
            Attention::Grouped { span: Some(Span::Chunk(chunk)), .. }
                if (chunk as f64) < length =>
            {
                let chunk = chunk as f64;
                let full_chunks = (length / chunk).floor();
                let rest = length - full_chunks * chunk;
                (full_chunks * chunk * chunk + rest * rest) / length
            }
            _ => length,
        }
    }

    /// Tokens of a document that the cache keeps: only the window, or the current chunk.
    fn cached_tokens(&self, length: f64) -> f64 {
        match *self {
            Attention::Grouped { span: Some(Span::Chunk(size) | Span::Window(size)), .. } => {
                length.min(size as f64)
            }
            _ => length,
        }
    }

    /// Multiplications per attended position in decoding. Latents are not expanded; queries and
    /// outputs are projected instead (DeepSeek-V2, section 2.1.2).
    fn decode_score_width(&self) -> usize {
        match *self {
            Attention::Grouped { .. } => self.score_width(),
            Attention::Latent { heads, kv_rank, rotated, .. } => heads * (2 * kv_rank + rotated),
        }
    }
}

impl FeedForward {
    /// Parameters of one expert.
    fn expert(&self, hidden: usize) -> usize {
        match *self {
            FeedForward::Dense { .. } | FeedForward::Ungated { .. } => 0,
            FeedForward::Mixture { inner, .. } => 3 * hidden * inner,
        }
    }
}

/// Rows and columns of the three matrices of a gated MLP.
fn gated(hidden: usize, inner: usize) -> [[usize; 2]; 3] {
    [[inner, hidden], [inner, hidden], [hidden, inner]]
}

fn elements([rows, cols]: [usize; 2]) -> usize {
    rows * cols
}

impl Block {
    /// Rows and columns of the block's matrices, with their number. Routers are excluded.
    pub(crate) fn matrices(&self, hidden: usize) -> Vec<(usize, [usize; 2])> {
        let mut matrices: Vec<_> =
            self.attention.matrices(hidden).into_iter().map(|matrix| (1, matrix)).collect();
        let mut add =
            |count, inner| matrices.extend(gated(hidden, inner).map(|matrix| (count, matrix)));
        match self.feed_forward {
            FeedForward::Dense { inner } => add(1, inner),
            FeedForward::Ungated { inner } => {
                matrices.extend([(1, [inner, hidden]), (1, [hidden, inner])]);
            }
            FeedForward::Mixture { experts, inner, shared, .. } => {
                add(experts, inner);
                if shared > 0 {
                    add(1, shared);
                }
            }
        }
        matrices
    }
}

/// Newton-Schulz iterations of Muon (Jordan et al. 2024).
const MUON_ITERATIONS: f64 = 5.0;

impl ModelShape {
    /// Sums `of(block)` over all layers.
    fn sum_blocks(&self, of: impl Fn(&Block) -> f64) -> f64 {
        self.blocks.iter().map(|(count, block)| *count as f64 * of(block)).sum()
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.blocks.iter().map(|(count, _)| count).sum()
    }

    fn head_rows(&self) -> usize {
        if self.head == Head::Scalar { 1 } else { self.vocab }
    }

    /// Parameters by part, with `experts(layer)` experts counted per mixture.
    fn parts(&self, experts: impl Fn(&FeedForward) -> usize) -> Parts {
        let h = self.hidden;
        Parts {
            embedding: ((self.vocab + self.positions) * h) as f64,
            projections: self.sum_blocks(|block| {
                block.attention.matrices(h).into_iter().map(elements).sum::<usize>() as f64
            }),
            attention: 0.0,
            feed_forward: self.sum_blocks(|block| match block.feed_forward {
                FeedForward::Dense { inner } => (3 * h * inner) as f64,
                FeedForward::Ungated { inner } => (2 * h * inner) as f64,
                FeedForward::Mixture { shared, .. } => (3 * h * shared) as f64,
            }),
            experts: self.sum_blocks(|block| {
                (experts(&block.feed_forward) * block.feed_forward.expert(h)) as f64
            }),
            router: self.sum_blocks(|block| match block.feed_forward {
                FeedForward::Dense { .. } | FeedForward::Ungated { .. } => 0.0,
                FeedForward::Mixture { experts, .. } => (experts * h) as f64,
            }),
            vectors: self.sum_blocks(|block| block.vectors as f64) + self.last_norm as f64,
            head: if self.head == Head::Tied { 0.0 } else { (self.head_rows() * h) as f64 },
        }
    }

    /// All parameters.
    pub fn parameters(&self) -> Parts {
        self.parts(|feed_forward| match *feed_forward {
            FeedForward::Dense { .. } | FeedForward::Ungated { .. } => 0,
            FeedForward::Mixture { experts, .. } => experts,
        })
    }

    /// Parameters active per token: of routed experts only the selected ones.
    pub fn active_parameters(&self) -> Parts {
        self.parts(|feed_forward| match *feed_forward {
            FeedForward::Dense { .. } | FeedForward::Ungated { .. } => 0,
            FeedForward::Mixture { per_token, .. } => per_token,
        })
    }

    /// FLOPs of Muon's orthogonalisation of all hidden matrices in one step. An m × n matrix (n ≥
    /// m) needs 4m²n + 2m³ per iteration.
    pub fn muon_flops(&self) -> Flops {
        let matrix_flops = |[rows, cols]: [usize; 2]| {
            let (m, n) = (rows.min(cols) as f64, rows.max(cols) as f64);
            MUON_ITERATIONS * (4.0 * m * m * n + 2.0 * m * m * m)
        };
        Flops(self.sum_blocks(|block| {
            block
                .matrices(self.hidden)
                .into_iter()
                .map(|(count, matrix)| count as f64 * matrix_flops(matrix))
                .sum()
        }))
    }

    /// Whether the model has routed experts.
    pub fn is_mixture(&self) -> bool {
        let mixture =
            |(_, block): &(usize, Block)| matches!(block.feed_forward, FeedForward::Mixture { .. });
        self.blocks.iter().any(mixture)
    }

    /// The N of 2N (forward) and 6N (training) FLOPs per token: active parameters of matrices. A
    /// tied head counts; an embedding look-up does not.
    pub fn matmul_parameters(&self) -> f64 {
        let Parts { projections, feed_forward, experts, router, .. } = self.active_parameters();
        projections + feed_forward + experts + router + (self.head_rows() * self.hidden) as f64
    }

    /// FLOPs by part of the forward pass of a document of `length` tokens, with logits for `rows`
    /// of them.
    ///
    /// A multiplication and an addition are two FLOPs, and attention is not halved for causality
    /// (Kaplan et al. 2020, arXiv:2001.08361, section 2.1; `PaLM`, arXiv:2204.02311, appendix B).
    /// Norms, activations, softmax and optimizer are excluded.
    fn document_parts(&self, length: f64, rows: f64) -> Parts {
        let Parts { projections, feed_forward, experts, router, .. } = self.active_parameters();
        let attention = |block: &Block| {
            block.attention.score_width() as f64 * block.attention.mean_attended(length)
        };
        Parts {
            embedding: 0.0,
            projections: 2.0 * projections * length,
            attention: 2.0 * self.sum_blocks(attention) * length,
            feed_forward: 2.0 * feed_forward * length,
            experts: 2.0 * experts * length,
            router: 2.0 * router * length,
            vectors: 0.0,
            head: 2.0 * (self.head_rows() * self.hidden) as f64 * rows,
        }
    }

    /// FLOPs of the forward pass of a document of `length` tokens, with logits for `rows` of them.
    pub fn document_flops(&self, length: usize, rows: usize) -> Flops {
        Flops(self.document_parts(length as f64, rows as f64).total())
    }

    /// FLOPs by part of one token's forward pass in a document of `length` tokens, with logits for
    /// all.
    pub fn forward_flops(&self, length: f64) -> Parts {
        self.document_parts(length, length).map(|flops| flops / length)
    }

    /// Cached values per token over all layers.
    pub fn cached_per_token(&self) -> f64 {
        self.sum_blocks(|block| block.attention.cached_per_token() as f64)
    }

    /// Cached values of a document of `length` tokens.
    pub fn cached(&self, length: f64) -> f64 {
        self.sum_blocks(|block| {
            block.attention.cached_per_token() as f64 * block.attention.cached_tokens(length)
        })
    }

    /// Cached values read per generated token, averaged over a document of `length` tokens. Causal,
    /// so half of the convention for training.
    pub fn cache_read(&self, length: f64) -> f64 {
        self.sum_blocks(|block| {
            block.attention.cached_per_token() as f64 * block.attention.mean_attended(length) / 2.0
        })
    }

    /// FLOPs per generated token, averaged over a document of `length` tokens.
    pub fn generation_flops(&self, length: f64) -> f64 {
        let attended = |block: &Block| {
            block.attention.decode_score_width() as f64 * block.attention.mean_attended(length)
                / 2.0
        };
        2.0 * (self.matmul_parameters() + self.sum_blocks(attended))
    }

    /// Parameters of tables of which a token reads one row, and that no GEMM has.
    pub(crate) fn looked_up(&self) -> f64 {
        let embedding = if self.head == Head::Tied { 0 } else { self.vocab };
        ((embedding + self.positions) * self.hidden) as f64
    }

    /// Parameters read per decoding step of `batch` sequences. Excludes tables of which a token
    /// reads one row, and experts that no sequence selects, assuming random routing.
    pub fn read_parameters(&self, batch: f64) -> f64 {
        let all = self.parameters();
        let experts = self.sum_blocks(|block| match block.feed_forward {
            FeedForward::Dense { .. } | FeedForward::Ungated { .. } => 0.0,
            FeedForward::Mixture { experts, per_token, .. } => {
                let unchosen = (1.0 - per_token as f64 / experts as f64).powf(batch);
                experts as f64 * (1.0 - unchosen) * block.feed_forward.expert(self.hidden) as f64
            }
        });
        all.total() - all.experts - self.looked_up() + experts
    }

    /// The shape with a scalar head, for reward and value models.
    #[must_use]
    pub fn scalar(&self) -> ModelShape {
        ModelShape { head: Head::Scalar, ..self.clone() }
    }

    /// Parameters with gradients and moments.
    pub fn trained_parameters(&self) -> f64 {
        match (self.adapter, self.head) {
            (0, _) => self.parameters().total(),
            (adapter, Head::Scalar) => (adapter + self.hidden) as f64,
            (adapter, _) => adapter as f64,
        }
    }

    /// Operations of a token of training for one of its forward pass. Frozen weights need no
    /// gradient of their own, so backward multiplies once; see [`crate::phases::Pass::flops`].
    pub fn training_factor(&self) -> f64 {
        crate::phases::TRAINING - if self.adapter > 0 { 1.0 } else { 0.0 }
    }

    /// The forward pass of the blocks, of all operations of training. Attention is not counted.
    pub(crate) fn blocks_share_of_training(&self) -> f64 {
        let head = (self.head_rows() * self.hidden) as f64;
        (1.0 - head / self.matmul_parameters()) / self.training_factor()
    }
}
