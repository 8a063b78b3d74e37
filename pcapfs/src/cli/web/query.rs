//! The parts of a request's address: segments of the path, and fields after the question mark.
//!
//! They are a stranger's text. What is not understood is an error, so that no misspelled option is
//! ignored.

use std::str::FromStr;
use std::time::Duration;

use super::answer::Problem;

/// Maximum number of fields of a query: no path takes more than ten.
const MAX_FIELDS: usize = 32;

/// Decodes percent signs (RFC 3986, 2.1); `None` if that gives no UTF-8, or a character that no name
/// has.
fn decoded(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            b'+' if plus_is_blank => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// The segments of a path, decoded. The path begins with a slash.
///
/// # Errors
/// It has a percent sign without two hexadecimal digits, or bytes that are no UTF-8.
pub(super) fn segments(path: &str) -> Result<Vec<String>, Problem> {
    let segments = path.strip_prefix('/').unwrap_or(path).split('/');
    let decoded = segments.map(|segment| decoded(segment, false));
    decoded.collect::<Option<_>>().ok_or_else(|| {
        Problem::wrong("the path has a percent sign that encodes no character of UTF-8")
    })
}

/// The fields of a query; each is taken once.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part of an address after the question mark.
    ///
    /// # Errors
    /// It is malformed, or names a field twice.
    pub(super) fn read(text: Option<&str>) -> Result<Self, Problem> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for field in text.unwrap_or_default().split('&').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let both = decoded(name, true).zip(decoded(value, true));
            let (name, value) = both.ok_or_else(|| {
                Problem::wrong("the query has a percent sign that encodes no character of UTF-8")
            })?;
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(Problem::wrong(format!("{name}: given twice")));
            }
            if fields.len() == MAX_FIELDS {
                return Err(Problem::wrong(format!("more than {MAX_FIELDS} fields in the query")));
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    /// The value of a field; an empty one counts as none.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(known, _)| known == name)?;
        let (_, value) = self.0.swap_remove(index);
        (!value.is_empty()).then_some(value)
    }

    /// The value of a field that is a `T`; `what` says what that is.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn parse<T: FromStr>(
        &mut self,
        name: &str,
        what: &str,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let value = text.parse().map_err(|_| Problem::wrong(format!("{name}={text}: {what}")));
        value.map(Some)
    }

    /// A number from 1 on.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn count(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        let what = "write a whole number from 1 on";
        match self.parse::<u64>(name, what)? {
            Some(0) => Err(Problem::wrong(format!("{name}=0: {what}"))),
            count => Ok(count),
        }
    }

    /// The number of entries that an answer may have: `default` unless another is given, at most
    /// `most`.
    ///
    /// # Errors
    /// It is no such number.
    pub(super) fn limit(&mut self, default: usize, most: usize) -> Result<usize, Problem> {
        let limit = self.count("limit")?.unwrap_or(default as u64);
        let fitting = usize::try_from(limit).ok().filter(|limit| *limit <= most);
        fitting.ok_or_else(|| Problem::wrong(format!("limit={limit}: at most {most}")))
    }

    /// A time such as `30s`, `500ms`, `5m`, `2h`, or a number of seconds.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn duration(&mut self, name: &str) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let duration = duration(&text);
        let wrong =
            || Problem::wrong(format!("{name}={text}: write a time such as 500ms, 30s, 5m or 2h"));
        duration.ok_or_else(wrong).map(Some)
    }

    /// Checks that every field was taken. `known` are the names that there are.
    ///
    /// # Errors
    /// The first one that was not.
    pub(super) fn end(self, known: &str) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let known = if known.is_empty() { "none" } else { known };
                Err(Problem::wrong(format!("{name}: no such field here (there are: {known})")))
            }
        }
    }
}

/// Reads a time; `None` if the text is none, or is zero.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok().filter(|number| *number > 0)?;
    match text.get(digits.len()..)? {
        "ms" => Some(Duration::from_millis(number)),
        "s" | "" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_decoded() {
        assert_eq!(segments("/a%20b/c+d/%2e%2e").unwrap(), ["a b", "c+d", ".."]);
        for path in ["/%", "/%4", "/%zz", "/%ff", "/%00"] {
            assert!(segments(path).is_err(), "{path}");
        }
        let mut query = Query::read(Some("filter=tcp+port%2080&x=&limit=7&&y")).unwrap();
        assert_eq!(query.take("filter").unwrap(), "tcp port 80");
        assert_eq!((query.take("x"), query.take("y"), query.take("z")), (None, None, None));
        assert_eq!(query.limit(5, 10).unwrap(), 7);
        query.end("").unwrap();
        assert!(Query::read(Some("a=1&a=2")).is_err());
        assert!(Query::read(Some(&"a".repeat(3))).unwrap().end("limit").is_err());
    }

    #[test]
    fn numbers_and_times_are_checked() {
        let read = |text: &str| Query::read(Some(text)).unwrap();
        assert_eq!(read("n=3").count("n").unwrap(), Some(3));
        for text in ["n=0", "n=-1", "n=x", "n=99999999999999999999"] {
            assert!(read(text).count("n").is_err(), "{text}");
        }
        assert!(read("limit=11").limit(5, 10).is_err());
        for (text, wanted) in [("500ms", 500), ("30s", 30_000), ("2", 2000), ("1h", 3_600_000)] {
            let wanted = Duration::from_millis(wanted);
            assert_eq!(read(&format!("d={text}")).duration("d").unwrap(), Some(wanted));
        }
        for text in ["d=0s", "d=s", "d=3d", "d=-3s", "d=1e3s", "d=18446744073709551615h"] {
            assert!(read(text).duration("d").is_err(), "{text}");
        }
    }
}
