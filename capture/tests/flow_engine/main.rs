//! The flow engine over a ring: bounds, laps, time, restarts, and readers meanwhile.

mod accounting;
mod bounds;
mod conversations;
mod disputed;
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
