//! Files of flows: what is made of them when somebody opens one.
//!
//! [`reading`] is one opener of one file. It gets bytes of packets through [`gather`], texts of
//! transactions through [`texts`] and [`render`], and knows of [`holes`]. [`stat`] says how long a
//! file is. `http.har` is kept for a while in [`hars`]; [`all_har`] makes that of a whole capture.

mod all_har;
pub(in crate::flow) mod gather;
pub(in crate::flow) mod hars;
mod holes;
pub(in crate::flow) mod reading;
mod render;
mod stat;
mod texts;
