//! mount.pcapfs: what runs with which rights, what survives, and how it ends.

mod configuration;
mod mounting;
mod namespaces;
mod rights;
mod service;
mod supervision;
mod support;
