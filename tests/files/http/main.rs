//! HTTP in flows: transactions, bodies, transcripts and `http.har`, with every framing and coding.

mod broken;
mod case;
mod coding;
mod framing;
mod har;
mod names;
mod records;
