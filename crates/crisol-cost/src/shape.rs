//! The shape of a decoder-only transformer: what its parameters and its work per token are made of.

use crate::units::Flops;

/// A model, as far as its cost goes.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// What the last hidden states are turned into.
    pub head: Head,
    /// Kinds of blocks, and how many there are of each.
    pub blocks: Vec<(usize, Block)>,
}

/// Output of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Logits, by the embedding's matrix.
    Tied,
    /// Logits, by a matrix of its own.
    Untied,
    /// One number per position (a reward or value model).
    Scalar,
}

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// How tokens look at one another.
    pub attention: Attention,
    /// What each token goes through by itself.
    pub feed_forward: FeedForward,
    /// Parameters in no matrix: norms, biases, corrections of a router.
    pub vectors: usize,
}

/// Attention of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Query heads that share fewer or as many heads of keys and values (arXiv:2305.13245).
    Grouped {
        /// Query heads.
        heads: usize,
        /// Heads of keys and values.
        kv_heads: usize,
        /// Scalars of each.
        head_dim: usize,
        /// Tokens of the chunk that a token sees; none: all before it.
        chunk: Option<usize>,
    },
    /// Keys and values from one short latent vector (DeepSeek-V2, arXiv:2405.04434, section 2.1).
    Latent {
        /// Query heads.
        heads: usize,
        /// Width of the bottleneck before queries, if there is one.
        query_rank: Option<usize>,
        /// Width of the latent vector.
        kv_rank: usize,
        /// Scalars of a query or key that are not rotated.
        unrotated: usize,
        /// And those that are; the rotated key is one for all heads.
        rotated: usize,
        /// Scalars of a value.
        value_dim: usize,
    },
}

/// Feed-forward layers of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// One gated layer (three matrices; arXiv:2002.05202).
    Dense {
        /// Width inside.
        inner: usize,
    },
    /// A mixture of gated layers, of which each token takes a few.
    Mixture {
        /// Experts to choose from.
        experts: usize,
        /// Experts of a token.
        per_token: usize,
        /// Width inside an expert.
        inner: usize,
        /// Width inside what all tokens go through; 0: nothing.
        shared: usize,
    },
}

/// One number for each part of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// The look-up table of tokens.
    pub embedding: f64,
    /// Matrices around attention.
    pub projections: f64,
    /// What queries, keys and values do with one another; it has no parameters.
    pub attention: f64,
    /// Dense feed-forward layers, and experts that all tokens go to.
    pub feed_forward: f64,
    /// Experts that tokens are routed to.
    pub experts: f64,
    /// What routes them.
    pub router: f64,
    /// Norms, biases and other vectors.
    pub vectors: f64,
    /// The output matrix; 0 parameters where it is the embedding's.
    pub head: f64,
}

impl Parts {
    /// Every part with its name.
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

    /// Something of each.
    pub(crate) fn map(self, f: impl Fn(f64) -> f64) -> Parts {
        self.with(Parts::default(), |a, _| f(a))
    }

    /// Something of each and of its counterpart.
    pub(crate) fn with(self, other: Parts, f: impl Fn(f64, f64) -> f64) -> Parts {
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

    /// All together.
    pub fn total(&self) -> f64 {
        self.named().iter().map(|(_, number)| number).sum()
    }
}

impl Attention {
    /// Rows and columns of its matrices in a model of this width.
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

    /// Scalars of queries and of values, over all heads: what a token multiplies with each position it sees.
    fn score_width(&self) -> usize {
        match *self {
            Attention::Grouped { heads, head_dim, .. } => 2 * heads * head_dim,
            Attention::Latent { heads, unrotated, rotated, value_dim, .. } => {
                heads * (unrotated + rotated + value_dim)
            }
        }
    }

    /// Numbers that generation keeps of every token.
    fn cached(&self) -> usize {
        match *self {
            Attention::Grouped { kv_heads, head_dim, .. } => 2 * kv_heads * head_dim,
            Attention::Latent { kv_rank, rotated, .. } => kv_rank + rotated,
        }
    }

    /// Tokens that a token of a document of `length` tokens sees, on average, if what comes after it counted too: the convention of
    /// published figures, which do not halve attention for causality.
    fn seen(&self, length: f64) -> f64 {
        match *self {
            Attention::Grouped { chunk: Some(chunk), .. } if (chunk as f64) < length => {
                let chunk = chunk as f64;
                let whole = (length / chunk).floor();
                let rest = length - whole * chunk;
                (whole * chunk * chunk + rest * rest) / length
            }
            _ => length,
        }
    }

    /// Tokens that generation keeps of a document of `length` tokens: of chunks only the one at work.
    fn kept(&self, length: f64) -> f64 {
        match *self {
            Attention::Grouped { chunk: Some(chunk), .. } => length.min(chunk as f64),
            _ => length,
        }
    }

    /// Scalars of all heads that a generated token multiplies with each position it looks at. Latent vectors are not expanded then:
    /// queries are turned into their space and results back (DeepSeek-V2, section 2.1.2).
    fn generated_score_width(&self) -> usize {
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
            FeedForward::Dense { .. } => 0,
            FeedForward::Mixture { inner, .. } => 3 * hidden * inner,
        }
    }
}

/// Rows and columns of a gated layer's matrices.
fn gated(hidden: usize, inner: usize) -> [[usize; 2]; 3] {
    [[inner, hidden], [inner, hidden], [hidden, inner]]
}

fn elements([rows, cols]: [usize; 2]) -> usize {
    rows * cols
}

impl Block {
    /// Rows and columns of its matrices in a model of this width, and how many there are of each; routers are left out.
    pub(crate) fn matrices(&self, hidden: usize) -> Vec<(usize, [usize; 2])> {
        let mut matrices: Vec<_> =
            self.attention.matrices(hidden).into_iter().map(|matrix| (1, matrix)).collect();
        let mut add =
            |count, inner| matrices.extend(gated(hidden, inner).map(|matrix| (count, matrix)));
        match self.feed_forward {
            FeedForward::Dense { inner } => add(1, inner),
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

/// Iterations in which Muon makes a matrix orthogonal (Jordan et al. 2024).
const MUON_ITERATIONS: f64 = 5.0;

impl ModelShape {
    /// Sums over blocks what each has.
    fn over_blocks(&self, of: impl Fn(&Block) -> f64) -> f64 {
        self.blocks.iter().map(|(count, block)| *count as f64 * of(block)).sum()
    }

    /// Blocks.
    pub fn layers(&self) -> usize {
        self.blocks.iter().map(|(count, _)| count).sum()
    }

    fn head_rows(&self) -> usize {
        if self.head == Head::Scalar { 1 } else { self.vocab }
    }

    /// Parameters by part, with so many experts of each mixture.
    fn parts(&self, experts: impl Fn(&FeedForward) -> usize) -> Parts {
        let h = self.hidden;
        Parts {
            embedding: (self.vocab * h) as f64,
            projections: self.over_blocks(|block| {
                block.attention.matrices(h).into_iter().map(elements).sum::<usize>() as f64
            }),
            attention: 0.0,
            feed_forward: self.over_blocks(|block| match block.feed_forward {
                FeedForward::Dense { inner } => (3 * h * inner) as f64,
                FeedForward::Mixture { shared, .. } => (3 * h * shared) as f64,
            }),
            experts: self.over_blocks(|block| {
                (experts(&block.feed_forward) * block.feed_forward.expert(h)) as f64
            }),
            router: self.over_blocks(|block| match block.feed_forward {
                FeedForward::Dense { .. } => 0.0,
                FeedForward::Mixture { experts, .. } => (experts * h) as f64,
            }),
            // The last norm is the model's.
            vectors: self.over_blocks(|block| block.vectors as f64) + h as f64,
            head: if self.head == Head::Tied { 0.0 } else { (self.head_rows() * h) as f64 },
        }
    }

    /// All parameters: what memory holds.
    pub fn parameters(&self) -> Parts {
        self.parts(|feed_forward| match *feed_forward {
            FeedForward::Dense { .. } => 0,
            FeedForward::Mixture { experts, .. } => experts,
        })
    }

    /// Parameters that take part in one token's pass: of experts only the chosen ones.
    pub fn active_parameters(&self) -> Parts {
        self.parts(|feed_forward| match *feed_forward {
            FeedForward::Dense { .. } => 0,
            FeedForward::Mixture { per_token, .. } => per_token,
        })
    }

    /// Operations of the products with which Muon makes the step of every matrix between hidden states orthogonal: in each iteration,
    /// of a matrix of m rows and n ≥ m columns, 4m²n + 2m³.
    pub fn muon_flops(&self) -> Flops {
        let of_matrix = |[rows, cols]: [usize; 2]| {
            let (m, n) = (rows.min(cols) as f64, rows.max(cols) as f64);
            MUON_ITERATIONS * (4.0 * m * m * n + 2.0 * m * m * m)
        };
        Flops(self.over_blocks(|block| {
            block
                .matrices(self.hidden)
                .into_iter()
                .map(|(count, matrix)| count as f64 * of_matrix(matrix))
                .sum()
        }))
    }

    /// Whether some parameters take no part in a token's pass.
    pub fn is_mixture(&self) -> bool {
        let mixture =
            |(_, block): &(usize, Block)| matches!(block.feed_forward, FeedForward::Mixture { .. });
        self.blocks.iter().any(mixture)
    }

    /// `N` of the formulas 2N (forward) and 6N (training) operations per token: active parameters of matrices. The head counts also
    /// where it is the embedding's; a look-up is no product.
    pub fn multiplied_parameters(&self) -> f64 {
        let Parts { projections, feed_forward, experts, router, .. } = self.active_parameters();
        projections + feed_forward + experts + router + (self.head_rows() * self.hidden) as f64
    }

    /// Operations of the forward pass of a document of `length` tokens, of which `rows` are asked what follows them, by part. A
    /// multiplication and an addition are two; attention is not halved for causality (the conventions of Kaplan et al. 2020,
    /// arXiv:2001.08361, section 2.1, and of `PaLM`, arXiv:2204.02311, appendix B). Norms, activations, softmax and optimizer are left
    /// out.
    fn document_parts(&self, length: f64, rows: f64) -> Parts {
        let Parts { projections, feed_forward, experts, router, .. } = self.active_parameters();
        let attention =
            |block: &Block| block.attention.score_width() as f64 * block.attention.seen(length);
        Parts {
            embedding: 0.0,
            projections: 2.0 * projections * length,
            attention: 2.0 * self.over_blocks(attention) * length,
            feed_forward: 2.0 * feed_forward * length,
            experts: 2.0 * experts * length,
            router: 2.0 * router * length,
            vectors: 0.0,
            head: 2.0 * (self.head_rows() * self.hidden) as f64 * rows,
        }
    }

    /// Operations of the forward pass of a document of `length` tokens, of which `rows` are asked what follows them.
    pub fn document_flops(&self, length: usize, rows: usize) -> Flops {
        Flops(self.document_parts(length as f64, rows as f64).total())
    }

    /// Operations of one token's forward pass in a document of `length` tokens, each of which is asked what follows it, by part.
    pub fn forward_flops(&self, length: f64) -> Parts {
        self.document_parts(length, length).map(|flops| flops / length)
    }

    /// Numbers that generation keeps of every token, over all blocks.
    pub fn cached_per_token(&self) -> f64 {
        self.over_blocks(|block| block.attention.cached() as f64)
    }

    /// Numbers that generation keeps of a document of `length` tokens.
    pub fn cached(&self, length: f64) -> f64 {
        self.over_blocks(|block| block.attention.cached() as f64 * block.attention.kept(length))
    }

    /// Numbers that generation reads of what it keeps for one more token, on average over a document of `length` tokens. Here a token
    /// sees only what came before it: half of what training counts.
    pub fn cache_read(&self, length: f64) -> f64 {
        self.over_blocks(|block| {
            block.attention.cached() as f64 * block.attention.seen(length) / 2.0
        })
    }

    /// Operations of one generated token, on average over a document of `length` tokens.
    pub fn generation_flops(&self, length: f64) -> f64 {
        let looked_at = |block: &Block| {
            block.attention.generated_score_width() as f64 * block.attention.seen(length) / 2.0
        };
        2.0 * (self.multiplied_parameters() + self.over_blocks(looked_at))
    }

    /// Parameters that generation reads for one token of each of `batch` sequences: all but the table of tokens (unless it is the head
    /// too), and of experts those that any of the sequences chooses, if each chooses at random.
    pub fn read_parameters(&self, batch: f64) -> f64 {
        let all = self.parameters();
        let experts = self.over_blocks(|block| match block.feed_forward {
            FeedForward::Dense { .. } => 0.0,
            FeedForward::Mixture { experts, per_token, .. } => {
                let unchosen = (1.0 - per_token as f64 / experts as f64).powf(batch);
                experts as f64 * (1.0 - unchosen) * block.feed_forward.expert(self.hidden) as f64
            }
        });
        let table = if self.head == Head::Tied { 0.0 } else { all.embedding };
        all.total() - all.experts - table + experts
    }

    /// The same model with a scalar head, as reward and value models are.
    #[must_use]
    pub fn scalar(&self) -> ModelShape {
        ModelShape { head: Head::Scalar, ..self.clone() }
    }
}
