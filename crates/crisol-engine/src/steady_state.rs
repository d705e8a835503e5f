//! The engine's operations allocate nothing in steady state, checked by a counting allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use crate::{
    Attention, Device, Draw, GatedActivation, Grads, Init, KvCache, MomentFormat, Optimizer,
    OptimizerConfig, ParamId, ParamSpec, Params, Role, Rope, RopeStyle, Sampling, Tape, UpdateRule,
    Var, Workspace,
};

struct CountingAllocator;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: forwards every call to the system allocator; counting does not allocate, because the
// thread-local cell is const-initialised and has no destructor.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

const DIM: usize = 24;
const SHAPE: Attention =
    Attention { window: Some(20), softcap: Some(5.0), ..Attention::new(4, 2, 6, 6, 0.4) };

/// One dense layer.
struct Layer {
    params: Params,
    rope: Rope,
}

impl Layer {
    fn new(device: &Device) -> Layer {
        let spec = |name: &str, shape: &[usize]| ParamSpec {
            name: name.into(),
            shape: shape.into(),
            init: if shape.len() == 2 { Init::Normal(0.3) } else { Init::Ones },
            role: if shape.len() == 2 { Role::Hidden } else { Role::Vector },
        };
        let specs = vec![
            spec("embedding", &[50, DIM]),
            spec("norm", &[DIM]),
            spec("head_norm", &[6]),
            spec("q", &[DIM, DIM]),
            spec("k", &[DIM / 2, DIM]),
            spec("v", &[DIM / 2, DIM]),
            spec("o", &[DIM, DIM]),
            spec("o_bias", &[DIM]),
            spec("gate", &[40, DIM]),
            spec("up", &[40, DIM]),
            spec("down", &[DIM, 40]),
        ];
        let params = Params::init(device, specs, 1);
        let rope = Rope::new(&[1.0, 0.1, 0.01], 1.0, RopeStyle::Halves);
        Layer { params, rope }
    }

    fn id(&self, name: &str) -> ParamId {
        self.params.id(name).expect("a parameter of the test's layer")
    }

    fn forward(
        &self,
        tape: &mut Tape<'_>,
        ids: &[u32],
        positions: &[u32],
        attend: impl FnOnce(&mut Tape<'_>, [Var; 3]) -> Var,
    ) -> Var {
        let x = tape.embedding(self.id("embedding"), ids);
        let x = tape.scale(x, 0.5);
        let h = tape.rms_norm_plus_one(x, self.id("norm"), 1e-5);
        let q = tape.linear(h, self.id("q"), None);
        let q = tape.rms_norm(q, self.id("head_norm"), 1e-5);
        let q = tape.rope(q, &self.rope, 6, positions);
        let k = tape.linear(h, self.id("k"), None);
        let k = tape.rope(k, &self.rope, 6, positions);
        let v = tape.linear(h, self.id("v"), None);
        let a = attend(tape, [q, k, v]);
        let a = tape.linear(a, self.id("o"), Some(self.id("o_bias")));
        let x = tape.add(x, a);
        let h = tape.layer_norm(x, self.id("norm"), Some(self.id("o_bias")), 1e-5);
        let gate = tape.linear(h, self.id("gate"), None);
        let up = tape.linear(h, self.id("up"), None);
        let h = tape.gated(gate, up, GatedActivation::Silu);
        let h = tape.gelu(h);
        let h = tape.linear(h, self.id("down"), None);
        tape.add(x, h)
    }
}

/// Allocations of this thread during `f`.
fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))), 1);
}

#[test]
fn a_training_step_allocates_nothing_after_the_first_two() {
    for rule in [UpdateRule::AdamW, UpdateRule::Muon] {
        training_step(rule);
    }
}

fn training_step(rule: UpdateRule) {
    let device = Device::cpu(Some(1));
    let mut layer = Layer::new(&device);
    let mut workspace = Workspace::new(&device);
    let mut grads = Grads::zeros_like(&layer.params);
    let mut optimizer = Optimizer::new(&layer.params, MomentFormat::F32);
    let config = OptimizerConfig {
        rule,
        lr: 1e-3,
        table_factor: 1.0,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: Some(1.0),
    };
    let ids: Vec<u32> = (0..60).map(|i| i * 7 % 50).collect();
    let positions: Vec<u32> = (0..60).map(|i| i % 45).collect();
    let (rows, targets): (Vec<u32>, Vec<u32>) = (0..30).map(|i| (2 * i, i)).unzip();
    let (dlogp, dentropy) = ([-1.0 / 30.0; 30], [0.01; 30]);
    let mut step = || {
        grads.zero();
        let mut tape = Tape::training(&layer.params, &mut workspace);
        let x = layer.forward(&mut tape, &ids, &positions, |tape, [q, k, v]| {
            tape.attention(q, k, v, SHAPE, &[0, 45, 60])
        });
        let x = tape.select_rows(x, &rows);
        let (logp, entropy) =
            tape.token_scores(x, layer.id("embedding"), &targets, 0.8, Some(3.0), true);
        tape.backward(&[(logp, &dlogp), (entropy, &dentropy)], &mut grads);
        optimizer.step(&mut layer.params, &grads, &config);
    };
    assert!(allocations(&mut step) > 0);
    step();
    for _ in 0..3 {
        assert_eq!(allocations(&mut step), 0);
    }
}

#[test]
fn decoding_allocates_only_its_tokens_after_the_first_two() {
    let device = Device::cpu(Some(1));
    let layer = Layer::new(&device);
    let mut workspace = Workspace::new(&device);
    let mut cache = KvCache::new(&device, 1, DIM / 2, DIM / 2, 3, 64);
    let sampling = Sampling {
        temperature: 0.7,
        top_k: Some(30),
        top_p: Some(0.9),
        min_p: Some(0.1),
        repetition_penalty: 1.2,
    };
    let mut token = |position: u32| {
        let mut tape = Tape::inference(&layer.params, &mut workspace);
        let x = layer.forward(&mut tape, &[3, 4], &[position; 2], |tape, [q, k, v]| {
            tape.attention_cached(q, k, v, SHAPE, &[0, 1, 2], &mut cache, &[2, 0], 0, None)
        });
        tape.keep_only(x);
        let logits = tape.logits(x, layer.id("embedding"));
        let logits = tape.softcap(logits, 3.0);
        let draws = [0, 1].map(|row| Draw { row, uniform: 0.5, seen: [&[3], &[4]] });
        assert!(tape.draw_tokens(logits, &sampling, &draws).is_some());
    };
    token(0);
    token(1);
    for position in 2..40 {
        assert_eq!(allocations(|| token(position)), 1);
    }
}
