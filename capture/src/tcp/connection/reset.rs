//! Resets: which of them count, and which turn out to be somebody else's.

use super::Connection;
use crate::tcp::segment::{Direction, Segment, Settings};
use crate::tcp::stream::Place;

#[derive(Clone, Copy, Debug)]
pub(super) struct Reset {
    pub(super) by: Direction,
    at: u64,
}

impl Connection {
    /// Whether a reset counts.
    pub(super) fn take_reset(&mut self, segment: &Segment<'_>, settings: &Settings) -> bool {
        let (direction, other) = (segment.direction, segment.direction.other());
        let stream = self.half(direction);
        let peer = self.half(other);
        let answers = segment.acknowledgment.is_none_or(|number| {
            !peer.is_known()
                || match peer.place(number, 0, settings) {
                    Place::Near(offset) => u64::try_from(offset)
                        .is_ok_and(|offset| offset <= peer.anchor().saturating_add(1)),
                    Place::Far => false,
                }
        });
        let at = if stream.is_known() {
            stream.accepts_reset(segment.sequence, settings)
        } else {
            // To a SYN, or from a side that was never seen.
            answers.then_some(0)
        };
        let Some(at) = at else {
            return false;
        };
        if self.reset.is_none() {
            let knows = segment.acknowledgment.is_some() && stream.is_known();
            if let Some(number) = segment.acknowledgment {
                self.stream(other).reset_acknowledges(number, settings);
            }
            self.stream(direction).reset_at(knows.then_some(at));
            self.reset = Some(Reset { by: direction, at });
        }
        true
    }

    /// The alleged sender of a reset goes on: it was not its own. Whether there was none.
    pub(super) fn doubt_reset(&mut self, segment: &Segment<'_>, settings: &Settings) -> bool {
        let Some(reset) = self.reset.filter(|reset| reset.by == segment.direction) else {
            return true;
        };
        let len = segment.wire_len;
        let stream = self.stream(segment.direction);
        let goes_on = match stream.place(segment.sequence, len, settings) {
            Place::Near(offset) if len > 0 || segment.flags.fin => {
                let end = offset.saturating_add(len.into());
                let end = end.saturating_add(segment.flags.fin.into());
                u64::try_from(end).is_ok_and(|end| end > reset.at)
            }
            _ => false,
        };
        if goes_on {
            stream.reset_at(None);
            self.stream(segment.direction.other()).reset_at(None);
            self.reset = None;
        }
        !goes_on
    }
}
