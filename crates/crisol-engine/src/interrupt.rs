//! A request to stop. Every [`Device`](crate::Device) has one. Long computations check it between
//! layers, GEMMs, operations of a backward pass and blocks of attention and logits, and return
//! early. Their results are then incomplete; the caller checks the flag before using them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared flags; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    requested: AtomicBool,
    unsaved: AtomicBool,
}

impl Interrupt {
    /// Requests a stop at the next safe point.
    pub fn request(&self) {
        self.0.requested.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was requested.
    pub fn requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }

    /// Sets whether work would be lost if the process ended now.
    pub fn set_unsaved(&self, unsaved: bool) {
        self.0.unsaved.store(unsaved, Ordering::SeqCst);
    }

    /// Whether work would be lost if the process ended now. If not, a request to stop may end the
    /// process.
    pub fn unsaved(&self) -> bool {
        self.0.unsaved.load(Ordering::SeqCst)
    }
}
