//! `pcapfs publish nats://` and `pcapfs fleet`, with the real server.

mod access;
mod finding;
mod machines;
mod publishing;
mod support;
