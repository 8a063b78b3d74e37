//! Sources of packets: interfaces, savefiles, FIFOs, standard input.

mod filters;
mod interfaces;
mod namespaces;
mod savefiles;
mod streams;
mod support;
mod testdata;
