//! Nothing that a file may hold makes the reader panic or end without a place.

use proptest::prelude::*;

use super::{GOOD, parse};

/// Reads a text, and checks what is said about it.
fn survives(text: &str) {
    let Err(errors) = parse(text) else { return };
    assert!(!errors.0.is_empty(), "{text:?}");
    for problem in &errors.0 {
        let lines = text.lines().count() + 1;
        assert!((1..=lines).contains(&problem.line), "{problem} of {lines}: {text:?}");
        assert!(problem.column >= 1, "{problem}: {text:?}");
        assert!(!problem.text.is_empty(), "{text:?}");
    }
    assert_eq!(errors.to_string().lines().count(), errors.0.len(), "{errors}");
}

/// Pieces that mean something to YAML or to us.
const PIECES: [&str; 48] = [
    "\n",
    "\n  ",
    "\n    ",
    "\n      ",
    " ",
    ": ",
    ":",
    ", ",
    "- ",
    "? ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "|\n",
    ">-\n",
    "#",
    "&a ",
    "*a",
    "!!str ",
    "!",
    "%",
    "@",
    "---\n",
    "...\n",
    "<<: ",
    "~",
    "\t",
    "\r\n",
    "export",
    "name",
    "metadata",
    "type",
    "children",
    "config",
    "ref",
    "uuid",
    "fake-power",
    "composite",
    "on",
    "1e999",
    "-0x1",
    "ä",
    "\u{feff}",
    "\0",
    "\u{2028}",
];

fn spliced(at: usize, cut: usize, piece: &str) -> String {
    let chars: Vec<_> = GOOD.chars().collect();
    let at = at.min(chars.len());
    let end = (at + cut).min(chars.len());
    chars[..at].iter().copied().chain(piece.chars()).chain(chars[end..].iter().copied()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_pieces_end_in_errors_with_a_place(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60)
    ) {
        survives(&pieces.concat());
    }

    #[test]
    fn random_entries_end_in_errors_with_a_place(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..30)
    ) {
        survives(&format!("name: b\nexport: {{p: {}", pieces.concat()));
    }

    #[test]
    fn random_text_ends_in_errors_with_a_place(text in "\\PC{0,80}") {
        survives(&text);
    }

    #[test]
    fn a_good_file_with_a_mutation_is_good_or_told(
        at in 0..GOOD.len(),
        cut in 0_usize..12,
        piece in prop::sample::select(&PIECES[..]),
    ) {
        survives(&spliced(at, cut, piece));
    }

    #[test]
    fn a_good_file_that_is_cut_is_good_or_told(at in 0..GOOD.len()) {
        survives(&spliced(at, GOOD.len(), ""));
    }
}
