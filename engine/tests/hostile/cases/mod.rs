//! The cases, by what is hostile.

mod decisions;
mod indexes;
mod maps;
mod opening;
mod packs;
mod retention;

use crate::Case;

/// All cases.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let themes: [&[Case]; 6] =
        [opening::CASES, decisions::CASES, retention::CASES, packs::CASES, maps::CASES, indexes::CASES];
    themes.into_iter().flatten()
}
