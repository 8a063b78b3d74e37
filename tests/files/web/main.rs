//! `pcapfs web`: its HTTP interface, asked with curl.

mod access;
mod streams;
mod support;
mod tls;
