//! A fuzz target without a fuzzer: runs once over each file named in its arguments, so that a fault
//! that a fuzzer found can be repeated with any toolchain.

/// Runs `body` over the files.
pub(crate) fn run(body: fn(&[u8])) {
    for path in std::env::args_os().skip(1) {
        let data =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        body(&data);
    }
}
