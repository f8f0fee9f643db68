//! What `#[derive(Row)]` refuses, and how it says so: each message, at its place. `TRYBUILD=overwrite` writes them anew.
//!
//! The rows stand on the library's own `row.rs` without the rest of it, so that nothing large is compiled for this.

#[test]
fn wrong_uses_are_told_where_they_stand() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/good.rs");
    cases.compile_fail("tests/ui/attributes.rs");
    cases.compile_fail("tests/ui/shapes.rs");
    cases.compile_fail("tests/ui/types.rs");
}
