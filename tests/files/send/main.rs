//! `pcapfs send`.

mod captures;
mod faults;
mod payload;
mod streams;
mod support;
mod testdata;
mod timing;
