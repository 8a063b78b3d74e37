//! Other machines: certificates, the service over TLS, and remotes on the command line.

mod access;
mod confined;
mod errors;
mod hostile;
mod identity;
mod own;
mod public_key;
mod support;
mod verbs;
