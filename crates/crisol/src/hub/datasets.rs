//! Data sets on a hub: a name selects files in the cache and rows of them.
//!
//! ```text
//! hf://datasets/ORG/NAME@REV/CONFIG:SPLIT[START..END]
//!      └ repository ┘ └ commit └ files by card or names └ rows
//! ```

#[cfg(feature = "hub")]
mod card;
#[cfg(feature = "hub")]
mod find;
mod name;
#[cfg(feature = "hub")]
mod select;

#[cfg(feature = "hub")]
pub(crate) use find::find;
pub(crate) use name::{DatasetName, SCHEME};
