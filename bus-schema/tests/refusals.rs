//! What the macros refuse, and where they point.

/// Builds a crate of its own: half a minute when nothing is cached. Some of the words are rustc's
/// and change with it; `TRYBUILD=overwrite` takes the new ones.
#[test]
fn slow_mistakes_are_refused_where_they_stand() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
