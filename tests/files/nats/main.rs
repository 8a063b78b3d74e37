//! `pcapfs publish nats://` and `pcapfs fleet`, with the real server.

mod finding;
mod machines;
mod publishing;
mod support;
