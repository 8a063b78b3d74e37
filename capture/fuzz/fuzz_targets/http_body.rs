//! See [`bodies::http_body`].

#![cfg_attr(fuzzing, no_main)]

#[path = "../bodies.rs"]
mod bodies;
#[cfg(not(fuzzing))]
#[path = "../files.rs"]
mod files;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::http_body(data));

#[cfg(not(fuzzing))]
fn main() {
    files::run(bodies::http_body);
}
