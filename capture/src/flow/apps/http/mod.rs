//! HTTP/1 in flows: [`messages`] follows it, [`unconfirmed`] has transactions whose receivers
//! may not have them yet, [`exchange`] is a transaction as the flow keeps it, and [`recording`] makes
//! one of the other.

pub(in crate::flow) mod exchange;
pub(in crate::flow) mod messages;
mod recording;
#[cfg(test)]
mod tests;
mod unconfirmed;
