//! Sources of packets: interfaces, devices, savefiles, FIFOs, standard input.

mod filters;
mod interfaces;
mod namespaces;
mod savefiles;
mod several;
mod streams;
mod support;
mod tap;
mod testdata;
mod workers;
mod xdp;
