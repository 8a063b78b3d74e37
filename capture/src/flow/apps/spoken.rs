//! The protocol of a TCP flow, as the bytes of its streams arrive: from the search for it to HTTP,
//! and on to the content of an HTTP tunnel.

use std::ops::Range;
use std::sync::Arc;

use protocol::http::parser::End;
use protocol::tcp::{Connection, Direction};

use super::App;
use super::exchange::Http;
use super::messages::Messages;
use super::probing::Found;
use super::probing::{Probing, TlsHellos};
use crate::flow::news::News;
use crate::flow::window::Window;

/// The parts of a flow that depend on its application protocol.
pub(in crate::flow) struct Spoken<'a> {
    pub(in crate::flow) app: &'a mut App,
    pub(in crate::flow) http: &'a mut Option<Box<Http>>,
    pub(in crate::flow) tls: &'a mut Option<Box<TlsHellos>>,
}

impl Spoken<'_> {
    /// Handles `range`, which the stream sent in `direction` has reached. Its last segment
    /// acknowledges the other stream up to `acknowledged`.
    pub(in crate::flow) fn settled(
        &mut self,
        direction: Direction,
        range: &Range<u64>,
        acknowledged: u64,
        connection: &Connection,
        window: &Window<'_>,
    ) {
        if let App::Probing(probing) = self.app {
            if !connection.has_beginning() {
                probing.tear();
            }
            match probing.look(direction, range, acknowledged, connection, window) {
                Found::Nothing => return,
                Found::Http { request, begins, is_torn } => {
                    let other = direction.other();
                    let http = self.http.get_or_insert_with(|| Box::new(Http::new(request)));
                    // A server that sends requests to its client inside a tunnel: the records of a
                    // flow have one direction.
                    if http.request != request {
                        *self.app = App::Unknown;
                        return;
                    }
                    let (marks, before) = (probing.take_marks(), probing.transactions());
                    let mut messages = Messages::new(request, begins, marks, is_torn, before);
                    let (end, acknowledged) = probing.looked(other);
                    messages.settled(other, end, acknowledged, connection, window);
                    *self.app = App::Http(Box::new(messages));
                }
                Found::Tls => {
                    *self.tls = probing.take_hellos();
                    *self.app = App::Tls;
                }
                Found::Unknown => *self.app = App::Unknown,
            }
        }
        if let App::Http(messages) = self.app {
            messages.settled(direction, range.end, acknowledged, connection, window);
        }
    }

    /// Reports the transactions that have ended. If the last one opened a tunnel, probes the
    /// content of the tunnel, which may be HTTP again.
    pub(in crate::flow) fn tell(
        &mut self,
        connection: &Connection,
        window: &Window<'_>,
        news: &mut Vec<News>,
    ) {
        // Each turn takes at least one transaction, so this ends with the settled bytes.
        while let App::Http(messages) = self.app {
            let request = messages.request();
            while let Some(transaction) = messages.transaction(connection) {
                let transaction = Arc::from(transaction);
                if let Some(http) = self.http {
                    http.transit.push(Arc::clone(&transaction));
                }
                news.push(News::Transaction(transaction, request));
            }
            let Some(tunnel) = messages.take_tunnel() else { return };
            *self.app = App::Probing(Probing::tunnel(tunnel));
            for (direction, begin, end) in [
                (Direction::Forward, tunnel.begins[0], tunnel.settled[0]),
                (Direction::Backward, tunnel.begins[1], tunnel.settled[1]),
            ] {
                if begin < end {
                    self.settled(direction, &(begin..end), 0, connection, window);
                }
            }
        }
    }

    /// Ends the flow in the way `how`.
    pub(in crate::flow) fn close(
        &mut self,
        how: End,
        connection: &Connection,
        window: &Window<'_>,
        news: &mut Vec<News>,
    ) {
        // A waiting piece may open a tunnel, and HTTP in the tunnel ends here too.
        while let App::Http(messages) = self.app
            && !messages.is_closed()
        {
            messages.close(how, connection, window);
            self.tell(connection, window, news);
        }
        if let App::Probing(probing) = self.app
            && let Some(hellos) = probing.take_hellos()
        {
            *self.tls = Some(hellos);
        }
    }
}
