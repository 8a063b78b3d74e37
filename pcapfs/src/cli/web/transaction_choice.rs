//! The choice of HTTP transactions by the fields of their lines.

use serde::Deserialize;

use super::answer::Problem;
use super::query::Query;
use crate::cli::outlet::expression::{
    ComparedLine, Condition, Expression, Field, FieldValue, has_part,
};

/// The transactions that are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct TransactionChoice {
    expression: Expression,
    /// A part of the URL, or of a name or value of a header, in lower case; `None` allows all.
    text: Option<String>,
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
        let mut conditions = Vec::new();
        if let Some(text) = query.take("status") {
            let wrong = || Problem::wrong(format!("status={text}: write one such as 404, or 4xx"));
            conditions.push(Condition::status(&text).ok_or_else(wrong)?);
        }
        let host = query.take("host").and_then(|part| Condition::has_part("host", &part));
        let method = query.take("method").and_then(|text| Condition::is_text("method", &text));
        conditions.extend([host, method].into_iter().flatten());
        let text = query.take("q").map(|text| text.to_lowercase());
        Ok(Self { expression: Expression::of(conditions), text })
    }

    /// True if the transaction of this line is wanted.
    pub(super) fn allows(&self, line: &[u8]) -> bool {
        if self.expression.is_empty() && self.text.is_none() {
            return true;
        }
        // A line that says something else is not one of ours.
        let Ok(line) = serde_json::from_slice::<TransactionLine>(line) else { return false };
        self.expression.holds_for(&line)
            && self.text.as_ref().is_none_or(|part| line.mentions(part))
    }
}

impl ComparedLine for TransactionLine {
    fn value(&self, field: &Field) -> FieldValue<'_> {
        let text = match field.name() {
            "status" => {
                let status = self.status.map(|status| FieldValue::Number(status.into()));
                return status.unwrap_or(FieldValue::Missing);
            }
            "host" => &self.host,
            "method" => &self.method,
            _ => return FieldValue::Missing,
        };
        text.as_deref().map_or(FieldValue::Missing, FieldValue::Text)
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
        has_part(&url, part)
            || headers
                .map(|(name, value)| format!("{name}: {value}"))
                .any(|one| has_part(&one, part))
    }
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
