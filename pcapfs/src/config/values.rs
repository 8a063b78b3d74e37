//! Values as they are written in a configuration: sizes, permission bits, users and groups.

use std::fmt;

use capture::injection::InjectSpeed;
use capture::source::{InterfaceBackend, Workers};
use protocol::tcp::{Policy, Urgent};
use protocol::time::Precision;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::size;

/// Bytes: a number, or `"64M"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// Permission bits: `"0750"`, or the number `0o750`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode(pub(super) u32);

/// A user or group: its name, or its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UserOrGroup {
    Name(String),
    Number(u32),
}

/// [`Precision`], as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrecisionWord(pub(super) Precision);

/// [`InterfaceBackend`], as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BackendWord(pub(super) InterfaceBackend);

/// [`Workers`], as they are written: a number, or a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WorkersWord(pub(super) Workers);

/// [`InjectSpeed`], as it is written: a number, or `"max"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpeedWord(pub(super) InjectSpeed);

/// [`Policy`], as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OverlapWord(pub(super) Policy);

/// [`Urgent`], as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UrgentWord(pub(super) Urgent);

/// A value that is written as a word or as a number.
trait Written: Sized {
    const EXPECTED: &str;

    fn from_word(word: &str) -> Result<Self, String>;

    fn from_number(number: u64) -> Result<Self, String>;

    /// From a number with a point in it.
    fn from_fraction(number: f64) -> Result<Self, String> {
        Err(format!("{number} is no whole number; expected {}", Self::EXPECTED))
    }
}

struct ValueReader<T>(std::marker::PhantomData<T>);

impl<T: Written> Visitor<'_> for ValueReader<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
        T::from_word(word).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::from_number(number).map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        T::from_fraction(number).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let below = || E::custom(format!("{number} is below 0; expected {}", T::EXPECTED));
        T::from_number(u64::try_from(number).map_err(|_| below())?).map_err(E::custom)
    }
}

macro_rules! written {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(ValueReader::<Self>(std::marker::PhantomData))
            }
        }
    )*};
}

written!(
    Size,
    Mode,
    UserOrGroup,
    PrecisionWord,
    BackendWord,
    WorkersWord,
    SpeedWord,
    OverlapWord,
    UrgentWord
);

impl Written for Size {
    const EXPECTED: &str = "a size, such as \"64M\"";

    fn from_word(word: &str) -> Result<Self, String> {
        size::parse(word).map(Self)
    }

    fn from_number(number: u64) -> Result<Self, String> {
        Ok(Self(number))
    }
}

impl Written for Mode {
    const EXPECTED: &str = "permission bits, such as \"0750\"";

    fn from_word(word: &str) -> Result<Self, String> {
        let digits = word.strip_prefix("0o").unwrap_or(word);
        let bad = || format!("'{word}' are no permission bits (write them as \"0750\")");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let bits = u32::from_str_radix(digits, 8).map_err(|_| bad())?;
        if bits > 0o777 { Err(bad()) } else { Ok(Self(bits)) }
    }

    fn from_number(number: u64) -> Result<Self, String> {
        let bits = u32::try_from(number).ok().filter(|bits| *bits <= 0o777);
        bits.map(Self).ok_or_else(|| {
            format!("{number} are no permission bits (write them as \"0750\" or 0o750)")
        })
    }
}

impl Written for UserOrGroup {
    const EXPECTED: &str = "a name or a number";

    fn from_word(word: &str) -> Result<Self, String> {
        Ok(word.parse().map_or_else(|_| Self::Name(word.to_owned()), Self::Number))
    }

    fn from_number(number: u64) -> Result<Self, String> {
        // The largest number means "no change" to chown(2).
        let id = u32::try_from(number).ok().filter(|id| *id != u32::MAX);
        id.map(Self::Number).ok_or_else(|| format!("{number} is no user or group"))
    }
}

impl Written for WorkersWord {
    const EXPECTED: &str = "a number, \"auto\" or \"4:cpu\"";

    fn from_word(word: &str) -> Result<Self, String> {
        let workers = Workers::parse(word).map(Self);
        workers.ok_or_else(|| {
            format!("'{word}' is no number of threads (write {})", Workers::EXPECTED)
        })
    }

    fn from_number(number: u64) -> Result<Self, String> {
        Self::from_word(&number.to_string())
    }
}

impl Written for BackendWord {
    const EXPECTED: &str = "\"af_packet\" or \"libpcap\"";

    fn from_word(word: &str) -> Result<Self, String> {
        let backend = InterfaceBackend::parse(word).map(Self);
        backend.ok_or_else(|| format!("'{word}' is no backend (write {})", Self::EXPECTED))
    }

    fn from_number(number: u64) -> Result<Self, String> {
        Self::from_word(&number.to_string())
    }
}

impl Written for SpeedWord {
    const EXPECTED: &str = "a number from 0.001 to 1000000, or \"max\"";

    fn from_word(word: &str) -> Result<Self, String> {
        let speed = InjectSpeed::parse(word).map(Self);
        speed.ok_or_else(|| format!("'{word}' is no speed (write {})", Self::EXPECTED))
    }

    fn from_number(number: u64) -> Result<Self, String> {
        Self::from_word(&number.to_string())
    }

    fn from_fraction(number: f64) -> Result<Self, String> {
        Self::from_word(&number.to_string())
    }
}

impl Written for PrecisionWord {
    const EXPECTED: &str = "\"nano\" or \"micro\"";

    fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "nano" => Ok(Self(Precision::Nano)),
            "micro" => Ok(Self(Precision::Micro)),
            _ => Err(format!("'{word}' is no precision (write \"nano\" or \"micro\")")),
        }
    }

    fn from_number(number: u64) -> Result<Self, String> {
        Self::from_word(&number.to_string())
    }
}

impl Written for OverlapWord {
    const EXPECTED: &str = "\"first\" or \"last\"";

    fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "first" => Ok(Self(Policy::First)),
            "last" => Ok(Self(Policy::Last)),
            _ => Err(format!("'{word}' is no copy (write \"first\" or \"last\")")),
        }
    }

    fn from_number(number: u64) -> Result<Self, String> {
        Self::from_word(&number.to_string())
    }
}

impl Written for UrgentWord {
    const EXPECTED: &str = "\"out-of-band\" or \"inline\"";

    fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "out-of-band" => Ok(Self(Urgent::OutOfBand)),
            "inline" => Ok(Self(Urgent::Inline)),
            _ => Err(format!(
                "'{word}' is no place for urgent data (write \"out-of-band\" or \"inline\")"
            )),
        }
    }

    fn from_number(number: u64) -> Result<Self, String> {
        Self::from_word(&number.to_string())
    }
}
