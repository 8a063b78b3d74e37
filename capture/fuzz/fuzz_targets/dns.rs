//! See [`bodies::dns`].

#![cfg_attr(fuzzing, no_main)]

#[path = "../bodies.rs"]
mod bodies;
#[cfg(not(fuzzing))]
#[path = "../files.rs"]
mod files;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::dns(data));

#[cfg(not(fuzzing))]
fn main() {
    files::run(bodies::dns);
}
