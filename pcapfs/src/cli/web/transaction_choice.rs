//! The choice of HTTP transactions by the fields of their lines.

use serde::Deserialize;

use super::answer::Problem;
use super::query::Query;

/// The transactions that are wanted; a field that is `None` allows all.
#[derive(Clone, Debug, Default)]
pub(super) struct TransactionChoice {
    status: Option<StatusRange>,
    /// A part of the host, in lower case.
    host: Option<String>,
    /// In upper case.
    method: Option<String>,
    /// A part of the URL, or of a name or value of a header, in lower case.
    text: Option<String>,
}

/// Statuses of HTTP from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StatusRange(u16, u16);

impl StatusRange {
    /// Reads `404` or `4xx`.
    fn read(text: &str) -> Option<Self> {
        if let Ok(status @ 100..=999) = text.parse() {
            return Some(Self(status, status));
        }
        let hundred = text.strip_suffix("xx")?.parse::<u16>().ok()?;
        (1..=9).contains(&hundred).then(|| Self(hundred * 100, hundred * 100 + 99))
    }
}

/// The fields of a line that are looked at.
#[derive(Deserialize)]
struct TransactionLine {
    status: Option<u16>,
    host: Option<String>,
    method: Option<String>,
    target: Option<String>,
    request_headers: Vec<(String, String)>,
    response_headers: Vec<(String, String)>,
}

impl TransactionChoice {
    /// Takes its fields of a query.
    ///
    /// # Errors
    /// The status is none.
    pub(super) fn read(query: &mut Query) -> Result<Self, Problem> {
        let status = query.take("status").map(|text| {
            let wrong = || Problem::wrong(format!("status={text}: write one such as 404, or 4xx"));
            StatusRange::read(&text).ok_or_else(wrong)
        });
        Ok(Self {
            status: status.transpose()?,
            host: query.take("host").map(|host| host.to_lowercase()),
            method: query.take("method").map(|method| method.to_uppercase()),
            text: query.take("q").map(|text| text.to_lowercase()),
        })
    }

    const fn allows_all(&self) -> bool {
        self.status.is_none() && self.host.is_none() && self.method.is_none() && self.text.is_none()
    }

    /// True if the transaction of this line is wanted.
    pub(super) fn allows(&self, line: &[u8]) -> bool {
        if self.allows_all() {
            return true;
        }
        // A line that says something else is not one of ours.
        let Ok(line) = serde_json::from_slice::<TransactionLine>(line) else { return false };
        let status = self.status.is_none_or(|StatusRange(from, to)| {
            line.status.is_some_and(|status| (from..=to).contains(&status))
        });
        let host = self.host.as_ref().is_none_or(|part| has(line.host.as_deref(), part));
        let method = self.method.as_ref().is_none_or(|wanted| {
            line.method.as_ref().is_some_and(|method| method.to_uppercase() == *wanted)
        });
        status && host && method && self.text.as_ref().is_none_or(|part| line.mentions(part))
    }
}

impl TransactionLine {
    fn mentions(&self, part: &str) -> bool {
        let url = format!(
            "{}{}",
            self.host.as_deref().unwrap_or_default(),
            self.target.as_deref().unwrap_or_default()
        );
        let headers = self.request_headers.iter().chain(&self.response_headers);
        has(Some(&url), part)
            || headers
                .map(|(name, value)| format!("{name}: {value}"))
                .any(|one| has(Some(&one), part))
    }
}

/// True if the text has this part, which is in lower case.
fn has(text: Option<&str>, part: &str) -> bool {
    text.is_some_and(|text| text.to_lowercase().contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"flow":1,"status":404,"host":"WWW.example.com","method":"GET",
        "target":"/a/B?c=d","request_headers":[["User-Agent","curl/8"]],
        "response_headers":[["Server","Nginx"]]}"#;

    fn allows(query: &str) -> bool {
        let mut query = Query::read(Some(query)).unwrap();
        TransactionChoice::read(&mut query).unwrap().allows(LINE.as_bytes())
    }

    #[test]
    fn transactions_are_chosen_by_their_fields() {
        for query in [
            "",
            "status=404",
            "status=4xx",
            "host=example",
            "method=get",
            "q=%2fA%2fb",
            "q=curl",
            "q=server:+nginx",
            "q=com/a",
            "status=4xx&host=www&method=GET&q=c=d",
        ] {
            assert!(allows(query), "{query}");
        }
        for query in ["status=200", "status=5xx", "host=example.org", "method=HEAD", "q=apache"] {
            assert!(!allows(query), "{query}");
        }
        for status in ["status=xx", "status=0xx", "status=99", "status=10xx", "status=4XX"] {
            let mut query = Query::read(Some(status)).unwrap();
            assert!(TransactionChoice::read(&mut query).is_err(), "{status}");
        }
    }
}
