//! See [`bodies::tls`].

#![cfg_attr(fuzzing, no_main)]

#[path = "../bodies.rs"]
mod bodies;
#[cfg(not(fuzzing))]
#[path = "../files.rs"]
mod files;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::tls(data));

#[cfg(not(fuzzing))]
fn main() {
    files::run(bodies::tls);
}
