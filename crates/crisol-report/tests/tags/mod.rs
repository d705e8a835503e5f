//! The tags of a page, for tests that no text changes them.

/// What stands between `<` and `>`, in order.
pub(crate) fn tags(page: &str) -> Vec<&str> {
    page.split('<').skip(1).map(|piece| piece.split('>').next().unwrap_or_default()).collect()
}
