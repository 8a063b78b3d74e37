//! mount.pcapfs: the rights of each process, restarts, and the end.

mod configuration;
mod mounting;
mod namespaces;
mod networks;
mod rights;
mod service;
mod supervision;
mod support;
