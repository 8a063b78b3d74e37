//! Files of flows: how they are made when a reader opens one.
//!
//! [`reading`] is one opener of one file. It gets bytes of packets from [`gather`], texts of
//! transactions from [`texts`] and [`render`], and the gaps in streams from [`holes`]. [`stat`]
//! computes the length of a file. [`hars`] caches `http.har`; [`all_har`] makes the one of a whole
//! capture.

mod all_har;
pub(in crate::flow) mod gather;
pub(in crate::flow) mod hars;
mod holes;
pub(in crate::flow) mod reading;
mod render;
mod stat;
mod texts;
