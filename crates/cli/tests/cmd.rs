//! What the program says without a server: help, mistakes, a server that is away.

#[test]
fn commands_say_what_they_always_say() {
    let home = tempfile::tempdir().expect("a folder");
    let cases = trycmd::TestCases::new();
    // Without the server in it, the program has fewer commands to tell of.
    #[cfg(feature = "server")]
    cases.case("tests/cmd/server/*.trycmd");
    cases
        .case("tests/cmd/*.trycmd")
        .env("HOME", home.path().display().to_string())
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .env("GRID_CREDENTIAL_PATH", "");
}
