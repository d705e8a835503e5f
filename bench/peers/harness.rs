//! What the peers in Rust share with `pytorch_step.py`: options, shapes, the clock, and the JSON
//! object at the end.

use std::error::Error;
use std::time::Instant;
use std::{env, fs};

const WARM_UP: usize = 2;
const LEAST_STEPS: usize = 3;

/// The sizes of the model and of its batch; the letters are those of `crisol bench`.
#[derive(Clone, Copy)]
pub struct Shape {
    pub d: usize,
    pub layers: usize,
    pub heads: usize,
    /// Heads of keys and values.
    pub kv: usize,
    pub ff: usize,
    pub vocab: usize,
    /// Tokens of a row.
    pub t: usize,
    /// Rows of the batch.
    pub b: usize,
    /// The head is the embedding.
    pub tied: bool,
}

const XS: Shape =
    Shape { d: 128, layers: 4, heads: 4, kv: 4, ff: 352, vocab: 2048, t: 128, b: 32, tied: true };
const S: Shape =
    Shape { d: 256, layers: 6, heads: 8, kv: 8, ff: 704, vocab: 4096, t: 256, b: 16, tied: true };
const M: Shape =
    Shape { d: 768, layers: 12, heads: 12, kv: 12, ff: 2048, vocab: 32000, t: 512, b: 2, tied: false };

impl Shape {
    /// XS, S, M, or changes to one of them, as in `crisol bench`; a list without a name changes XS.
    fn parse(text: &str) -> Result<Self, Box<dyn Error>> {
        let mut parts = text.split(',').peekable();
        let mut shape = match parts.next_if(|part| !part.contains('=')) {
            None | Some("XS") => XS,
            Some("S") => S,
            Some("M") => M,
            Some(name) => {
                return Err(format!("--shape: no shape is called {name}; there are XS, S and M").into());
            }
        };
        let mut kv = None;
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("--shape: {part} is not of the form key=value"))?;
            let number = || value.parse().map_err(|error| format!("--shape: {part}: {error}"));
            match key {
                "d" => shape.d = number()?,
                "L" => shape.layers = number()?,
                "H" => shape.heads = number()?,
                "kv" => kv = Some(number()?),
                "ff" => shape.ff = number()?,
                "V" => shape.vocab = number()?,
                "T" => shape.t = number()?,
                "B" => shape.b = number()?,
                "head" => shape.tied = value == "tied",
                _ => return Err(format!("--shape: {key} is none of d, L, H, kv, ff, V, T, B, head").into()),
            }
        }
        shape.kv = kv.unwrap_or(shape.heads);
        Ok(shape)
    }

    pub fn head_dim(&self) -> usize {
        self.d / self.heads
    }

    /// Cosines and sines of the angles of RoPE, `t` rows of half a head each.
    pub fn angles(&self) -> [Vec<f32>; 2] {
        let half = self.head_dim() / 2;
        let angle = |i: usize| (i / half) as f32 * 10_000_f32.powf(-((i % half) as f32) / half as f32);
        [f32::cos, f32::sin].map(|function| (0..self.t * half).map(|i| function(angle(i))).collect())
    }

    /// Random tokens, `b` rows of `t`, and what follows each of them (after the last of a row, the
    /// first).
    pub fn batch(&self) -> [Vec<u32>; 2] {
        // The multiplier and increment of Knuth's MMIX; only its upper bits are random enough.
        let mut state = 0_u64;
        let mut token = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % self.vocab as u64) as u32
        };
        let ids: Vec<u32> = (0..self.b * self.t).map(|_| token()).collect();
        let targets = ids.chunks(self.t).flat_map(|row| [&row[1..], &row[..1]].concat()).collect();
        [ids, targets]
    }
}

/// Says when a step is to be taken, and takes the time of each.
pub struct Clock {
    pub shape: Shape,
    name: String,
    threads: usize,
    seconds: f64,
    start: Instant,
    times: Vec<f64>,
    losses: Vec<f32>,
}

impl Clock {
    /// Reads `--shape`, `--threads` and `--seconds`, and tells rayon how many threads to start. To
    /// be called first of all, while there is no other thread.
    pub fn from_arguments() -> Result<Self, Box<dyn Error>> {
        let (mut name, mut threads, mut seconds) =
            ("XS".to_owned(), std::thread::available_parallelism()?.get(), 10.0);
        let mut arguments = env::args().skip(1);
        while let Some(option) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{option}: a value is missing"))?;
            match option.as_str() {
                "--shape" => name = value,
                "--threads" => {
                    threads = value.parse().map_err(|error| format!("--threads {value}: {error}"))?
                }
                "--seconds" => {
                    seconds = value.parse().map_err(|error| format!("--seconds {value}: {error}"))?
                }
                _ => return Err(format!("{option} is none of --shape, --threads, --seconds").into()),
            }
        }
        // SAFETY: nobody else reads or writes the environment, because this is the only thread.
        unsafe { env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
        let shape = Shape::parse(&name)?;
        Ok(Self { shape, name, threads, seconds, start: Instant::now(), times: vec![], losses: vec![] })
    }

    /// Whether to take one more step; its time begins now.
    pub fn next_step(&mut self) -> bool {
        let timed = &self.times[self.times.len().min(WARM_UP)..];
        let more = timed.len() < LEAST_STEPS || timed.iter().sum::<f64>() < self.seconds;
        self.start = Instant::now();
        more
    }

    pub fn end_step(&mut self, loss: f32) {
        self.times.push(self.start.elapsed().as_secs_f64());
        self.losses.push(loss);
    }

    /// Prints the JSON object; and the first and the last loss to stderr, which show that it
    /// trains.
    pub fn report(self) -> Result<(), Box<dyn Error>> {
        let mut times = self.times[WARM_UP..].to_vec();
        times.sort_by(f64::total_cmp);
        let n = times.len();
        let median = f64::midpoint(times[n / 2], times[(n - 1) / 2]);
        let status = fs::read_to_string("/proc/self/status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        let kibibytes: usize = peak.ok_or("/proc/self/status has no VmHWM")?.trim().parse()?;
        eprintln!("loss {} to {} in {} steps", self.losses[0], self.losses[n + WARM_UP - 1], n + WARM_UP);
        println!(
            r#"{{"peer": "{}", "threads": {}, "shape": "{}", "steps": {n}, "tokens_per_second": {}, "peak_memory_bytes": {}}}"#,
            env!("CARGO_PKG_NAME"),
            self.threads,
            self.name,
            (self.shape.b * self.shape.t) as f64 / median,
            kibibytes * 1024,
        );
        Ok(())
    }
}
