//! Events of a flow that the engine passes on.

use std::sync::Arc;

use protocol::http::transaction::Transaction;
use protocol::tcp::Direction;

/// An event that the engine passes on.
#[derive(Debug)]
pub(super) enum News {
    /// An HTTP transaction has ended; its request went in this direction.
    Transaction(Arc<Transaction>, Direction),
    /// Nothing more will come.
    Closed,
}
