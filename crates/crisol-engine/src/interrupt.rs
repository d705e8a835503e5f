//! A request to stop. Every [`Device`](crate::Device) has one; long computations look at it between their pieces (a
//! layer, a product, an operation's backward pass, some queries of an attention, some rows of the logits) and end early. What they
//! computed is then a part of it, and whoever asked for it must look again before it is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared flags; clones are the same flags.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    requested: AtomicBool,
    unsaved: AtomicBool,
}

impl Interrupt {
    /// Asks every holder to stop at the next safe point.
    pub fn request(&self) {
        self.0.requested.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked to stop.
    pub fn requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }

    /// Says whether there is work that would be lost if the process ended now.
    pub fn set_unsaved(&self, unsaved: bool) {
        self.0.unsaved.store(unsaved, Ordering::SeqCst);
    }

    /// Whether work would be lost if the process ended now. Where none would be, a request to stop may end the process.
    pub fn unsaved(&self) -> bool {
        self.0.unsaved.load(Ordering::SeqCst)
    }
}
