//! The flow engine over a ring: limits, laps, time, restarts, and concurrent readers.

mod accounting;
mod bounds;
mod conversations;
mod disputed;
mod dns;
mod fragments;
mod joined;
mod overwritten;
mod padding;
mod readers;
mod restarts;
mod scene;
mod time;
mod tunnels;
mod under_way;
mod urgent;
