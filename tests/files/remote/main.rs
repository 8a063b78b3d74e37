//! Other machines: certificates, the service over TLS, and remotes on the command line.

mod identity;
