//! Characters that change how a terminal shows the text after them (UAX #9).

/// Returns true for embeddings, overrides and isolates, which reverse the order of the text after
/// them. Text that is only displayed does not need them.
pub(crate) const fn reverses(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
