//! Cursors: where the next page of a list begins, as a client sends it back.

use std::fmt;

use http::StatusCode;

use super::answer::Problem;
use super::query::Query;

/// A number in the lists of one daemon. Another daemon gives the same numbers to other flows and
/// lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor<'a> {
    pub(super) generation: &'a str,
    pub(super) number: u64,
}

impl fmt::Display for Cursor<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.generation, self.number)
    }
}

/// The number after which a list begins: that of the field `after`, 0 without one. A number without
/// a generation is taken as it is.
///
/// # Errors
/// It is no cursor, or one of an earlier daemon.
pub(super) fn after(query: &mut Query, generation: &str) -> Result<u64, Problem> {
    let Some(text) = query.take("after") else { return Ok(0) };
    let (of, number) = text.rsplit_once('-').unwrap_or((generation, &text));
    let number = number.parse().map_err(|_| {
        Problem::wrong(format!("after={text}: write the 'next' of the answer before, or a number"))
    })?;
    if of == generation {
        return Ok(number);
    }
    Err(Problem::new(
        StatusCode::GONE,
        format!("after={text}: the daemon was started again (begin again, without after)"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_of_one_daemon() {
        let after = |text: &str| after(&mut Query::read(Some(text)).unwrap(), "abc");
        let cursor = Cursor { generation: "abc", number: 7 }.to_string();
        assert_eq!(after(&format!("after={cursor}")), Ok(7));
        assert_eq!((after(""), after("after=9")), (Ok(0), Ok(9)));
        assert_eq!(after("after=abd-7").unwrap_err().status, StatusCode::GONE);
        assert_eq!(after("after=abc-x").unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
