//! How many threads take the packets of an interface, and which of them takes which.

use std::fmt;
use std::thread;

/// Maximum number of threads for one capture.
const MAX_NUMBER: u32 = 64;

/// Maximum number of threads that are chosen by the number of processors.
const MAX_AUTOMATIC: u32 = 16;

/// The word for as many threads as there are processors.
const AUTOMATIC: &str = "auto";

/// The threads that take the packets of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// `None` for one for each processor that this process may use, and at most 16.
    number: Option<u32>,
    /// Which of them takes which packets.
    pub fanout: Fanout,
}

impl Default for Workers {
    fn default() -> Self {
        Self::ONE
    }
}

impl Workers {
    /// One thread.
    pub const ONE: Self = Self { number: Some(1), fanout: Fanout::Hash };

    /// How it is written, for messages.
    pub const EXPECTED: &str =
        "1 to 64 or auto, and for another distribution than hash 4:cpu or 4:qm";

    /// The threads that are written like this: `4`, `auto`, `4:cpu`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, fanout) = match text.split_once(':') {
            Some((number, word)) => (number, Fanout::parse(word)?),
            None => (text, Fanout::Hash),
        };
        let number = match number {
            AUTOMATIC => None,
            number => Some(number.parse().ok().filter(|number| (1..=MAX_NUMBER).contains(number))?),
        };
        Some(Self { number, fanout })
    }

    /// Number of threads, at least 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number.unwrap_or_else(|| {
            let processors = thread::available_parallelism().map_or(1, usize::from);
            u32::try_from(processors).unwrap_or(MAX_AUTOMATIC).min(MAX_AUTOMATIC)
        })
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(formatter, "{number}")?,
            None => formatter.write_str(AUTOMATIC)?,
        }
        match self.fanout {
            Fanout::Hash => Ok(()),
            fanout => write!(formatter, ":{}", fanout.word()),
        }
    }
}

/// How the kernel distributes the packets of an interface among several threads: `PACKET_FANOUT` of
/// packet(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fanout {
    /// By addresses and ports. Both directions of a flow go to one thread, so its packets keep their
    /// order.
    #[default]
    Hash,
    /// By the processor on which the packet arrived.
    Cpu,
    /// By the queue of the card in which the packet arrived.
    Queue,
}

impl Fanout {
    const ALL: [Self; 3] = [Self::Hash, Self::Cpu, Self::Queue];

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fanout| fanout.word() == word)
    }

    /// As it is written.
    const fn word(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Cpu => "cpu",
            Self::Queue => "qm",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_read_as_they_are_written() {
        for (text, number, fanout) in [
            ("1", 1, Fanout::Hash),
            ("64", 64, Fanout::Hash),
            ("2:cpu", 2, Fanout::Cpu),
            ("3:qm", 3, Fanout::Queue),
        ] {
            let workers = Workers::parse(text).unwrap();
            assert_eq!((workers.number(), workers.fanout), (number, fanout));
            assert_eq!(workers.to_string(), text);
        }
        assert_eq!(Workers::parse("1"), Some(Workers::default()));
        assert_eq!(Workers::parse("2:hash"), Workers::parse("2"));
        for text in ["auto", "auto:cpu"] {
            let workers = Workers::parse(text).unwrap();
            assert!((1..=MAX_AUTOMATIC).contains(&workers.number()));
            assert_eq!(workers.to_string(), text);
        }
        for text in ["", "0", "65", "-1", "2:", "2:rollover", "cpu", "2:cpu:qm", "Auto", " 2"] {
            assert_eq!(Workers::parse(text), None, "{text:?}");
        }
    }
}
