//! `pcapfs publish nats://` and `pcapfs fleet`, with the real server.

mod access;
mod faults;
mod finding;
mod machines;
mod publishing;
mod support;
