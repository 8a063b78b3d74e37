//! `pcapfs web`: its HTTP interface, asked with curl.

mod access;
mod documented;
mod events;
mod files;
mod flows;
mod streams;
mod support;
mod tls;
