//! The subscriptions of a SUB peer: prefixes of the first frame of a message (RFC 29).

use bytes::Bytes;

use super::frame::ReceivedFrame;

/// Maximum number of subscriptions of a peer: there are a handful of topics.
const MAX_SUBSCRIPTIONS: usize = 256;

/// The prefixes that a peer wants; a prefix that was subscribed to twice is there twice.
#[derive(Clone, Debug, Default)]
pub(in crate::cli::publish) struct Subscriptions(Vec<Bytes>);

impl Subscriptions {
    /// True if the peer wants messages with this first frame.
    pub(in crate::cli::publish) fn wants(&self, topic: &[u8]) -> bool {
        self.0.iter().any(|prefix| topic.starts_with(prefix))
    }

    /// Takes a frame of the peer; true if it was about a subscription. Peers of ZMTP 3.0 send
    /// messages that begin with a byte, later ones commands.
    ///
    /// # Errors
    /// There are too many.
    pub(in crate::cli::publish) fn take(&mut self, frame: &ReceivedFrame) -> Result<bool, String> {
        let (is_wanted, prefix) = match frame {
            ReceivedFrame::Command(name, prefix) if &name[..] == b"SUBSCRIBE" => {
                (true, prefix.clone())
            }
            ReceivedFrame::Command(name, prefix) if &name[..] == b"CANCEL" => {
                (false, prefix.clone())
            }
            ReceivedFrame::Part(body, false) => match body.first() {
                Some(1) => (true, body.slice(1..)),
                Some(0) => (false, body.slice(1..)),
                _ => return Ok(false),
            },
            _ => return Ok(false),
        };
        if is_wanted {
            if self.0.len() >= MAX_SUBSCRIPTIONS {
                return Err(format!("more than {MAX_SUBSCRIPTIONS} subscriptions"));
            }
            self.0.push(prefix);
        } else if let Some(place) = self.0.iter().position(|known| *known == prefix) {
            self.0.swap_remove(place);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_and_go() {
        let mut known = Subscriptions::default();
        assert!(!known.wants(b"http"));
        let message = |bytes: &'static [u8]| ReceivedFrame::Part(Bytes::from_static(bytes), false);
        let command = |name: &'static [u8], data: &'static [u8]| {
            ReceivedFrame::Command(Bytes::from_static(name), Bytes::from_static(data))
        };
        assert_eq!(known.take(&message(b"\x01ht")), Ok(true));
        assert_eq!(known.take(&command(b"SUBSCRIBE", b"http")), Ok(true));
        assert!(known.wants(b"http") && known.wants(b"ht") && !known.wants(b"flow"));
        assert_eq!(known.take(&message(b"\0ht")), Ok(true));
        assert!(known.wants(b"http") && !known.wants(b"ht"));
        assert_eq!(known.take(&command(b"CANCEL", b"http")), Ok(true));
        assert!(!known.wants(b"http"));
        assert_eq!(known.take(&message(b"\x01")), Ok(true));
        assert!(known.wants(b"anything"));
        assert_eq!(known.take(&message(b"hello")), Ok(false));
        for _ in 1..MAX_SUBSCRIPTIONS {
            known.take(&message(b"\x01x")).unwrap();
        }
        assert!(known.take(&message(b"\x01x")).is_err());
    }
}
