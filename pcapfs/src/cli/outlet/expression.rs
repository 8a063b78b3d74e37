//! Expressions that choose lines of logs by their fields, such as `status>=500 and host~example`.
//!
//! An expression is conditions joined by `and`. A condition is a field, an operator and a value. All
//! fields are known here, so that a misspelled one is an error and not a silence.

use std::net::IpAddr;

use serde_json::Value;

use super::event_kind::EventKind;

/// Maximum number of bytes of an expression: it is typed by a person.
const MAX_LENGTH: usize = 4096;

/// The content of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldType {
    Text,
    Number,
    Address,
}

/// A field of lines.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Field {
    /// As it is written in an expression.
    name: &'static str,
    /// Its place in a line, as a JSON pointer (RFC 6901).
    pointer: &'static str,
    content: FieldType,
    kinds: &'static [EventKind],
}

const LINES: &[EventKind] = &[EventKind::Flows, EventKind::Http, EventKind::Dns];
const TRANSACTIONS: &[EventKind] = &[EventKind::Http, EventKind::Dns];
const ALL: &[EventKind] = &EventKind::ALL;
const FLOWS: &[EventKind] = &[EventKind::Flows];
const HTTP: &[EventKind] = &[EventKind::Http];
const DNS: &[EventKind] = &[EventKind::Dns];
const STATES: &[EventKind] = &[EventKind::State, EventKind::Status];
const CHANGES: &[EventKind] = &[EventKind::State];
const NAMED: &[EventKind] = &[EventKind::Flows, EventKind::Dns];

const fn field(
    name: &'static str,
    pointer: &'static str,
    content: FieldType,
    kinds: &'static [EventKind],
) -> Field {
    Field { name, pointer, content, kinds }
}

use FieldType::{Address, Number, Text};

/// All fields.
const FIELDS: [Field; 33] = [
    field("capture", "/capture", Text, ALL),
    field("state", "/state", Text, ALL),
    field("flow", "/flow", Number, LINES),
    field("client", "/client/address", Address, LINES),
    field("client.port", "/client/port", Number, LINES),
    field("server", "/server/address", Address, LINES),
    field("server.port", "/server/port", Number, LINES),
    field("duration_us", "/duration_us", Number, LINES),
    field("index", "/index", Number, TRANSACTIONS),
    field("why", "/why", Text, TRANSACTIONS),
    field("method", "/method", Text, HTTP),
    field("host", "/host", Text, HTTP),
    field("target", "/target", Text, HTTP),
    field("version", "/version", Text, HTTP),
    field("status", "/status", Number, HTTP),
    field("reason", "/reason", Text, HTTP),
    field("request_body.bytes", "/request_body/bytes", Number, HTTP),
    field("response_body.bytes", "/response_body/bytes", Number, HTTP),
    field("event", "/event", Text, FLOWS),
    field("protocol", "/protocol", Text, FLOWS),
    field("application", "/application", Text, FLOWS),
    field("closed_by", "/closed_by", Text, FLOWS),
    field("sni", "/tls/sni", Text, FLOWS),
    field("client.packets", "/client/packets", Number, FLOWS),
    field("client.bytes", "/client/bytes", Number, FLOWS),
    field("server.packets", "/server/packets", Number, FLOWS),
    field("server.bytes", "/server/bytes", Number, FLOWS),
    field("name", "/name", Text, NAMED),
    field("type", "/type", Text, DNS),
    field("rcode", "/rcode", Text, DNS),
    field("previous", "/previous", Text, CHANGES),
    field("error", "/error", Text, STATES),
    field("source", "/source", Text, STATES),
];

impl Field {
    /// Its name, as it is written in an expression.
    pub(in crate::cli) const fn name(&self) -> &'static str {
        self.name
    }
}

/// The value of a field in a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli) enum FieldValue<'a> {
    /// The line has no such value.
    Missing,
    Text(&'a str),
    Number(f64),
}

/// A line whose fields can be compared.
pub(in crate::cli) trait ComparedLine {
    /// The value of a field.
    fn value(&self, field: &Field) -> FieldValue<'_>;
}

impl ComparedLine for Value {
    fn value(&self, field: &Field) -> FieldValue<'_> {
        match self.pointer(field.pointer) {
            Some(Self::String(text)) => FieldValue::Text(text),
            Some(Self::Number(number)) => {
                number.as_f64().map_or(FieldValue::Missing, FieldValue::Number)
            }
            _ => FieldValue::Missing,
        }
    }
}

/// An operator, in the order in which they are looked for: longer ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    NotEqual,
    NotContains,
    AtLeast,
    AtMost,
    Equal,
    Contains,
    Above,
    Below,
}

const OPERATORS: [(&str, Operator); 9] = [
    ("!=", Operator::NotEqual),
    ("!~", Operator::NotContains),
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("==", Operator::Equal),
    ("=", Operator::Equal),
    ("~", Operator::Contains),
    (">", Operator::Above),
    ("<", Operator::Below),
];

impl Operator {
    const fn is_order(self) -> bool {
        matches!(self, Self::AtLeast | Self::AtMost | Self::Above | Self::Below)
    }

    const fn is_part(self) -> bool {
        matches!(self, Self::Contains | Self::NotContains)
    }
}

/// The value of a condition.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    /// No value, written `null`.
    Nothing,
    /// In lower case.
    Text(String),
    Address(IpAddr),
    /// Numbers from one to another, both included.
    Range(f64, f64),
}

/// A condition on one field.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Condition {
    field: &'static Field,
    operator: Operator,
    wanted: Wanted,
}

impl Condition {
    /// The status of HTTP is this one, such as `404`, or in this class, such as `4xx`; `None` if the
    /// text is neither.
    pub(in crate::cli) fn status(text: &str) -> Option<Self> {
        let wanted = numbers(text, true)?;
        Some(Self { field: named("status")?, operator: Operator::Equal, wanted })
    }

    /// The field has this part, in upper or lower case; `None` if there is no such field of text.
    pub(in crate::cli) fn has_part(name: &str, part: &str) -> Option<Self> {
        let wanted = Wanted::Text(part.to_lowercase());
        Some(Self { field: named(name)?, operator: Operator::Contains, wanted })
    }

    /// The field has this text, in upper or lower case; `None` if there is no such field of text.
    pub(in crate::cli) fn is_text(name: &str, text: &str) -> Option<Self> {
        let wanted = Wanted::Text(text.to_lowercase());
        Some(Self { field: named(name)?, operator: Operator::Equal, wanted })
    }

    /// The field has this address; `None` if there is no such field.
    pub(in crate::cli) fn is_address(name: &str, address: IpAddr) -> Option<Self> {
        let wanted = Wanted::Address(address);
        Some(Self { field: named(name)?, operator: Operator::Equal, wanted })
    }

    /// True if the line meets it. A line without the field meets only a condition on `null`.
    pub(in crate::cli) fn holds_for(&self, line: &impl ComparedLine) -> bool {
        let value = line.value(self.field);
        let is_missing = value == FieldValue::Missing;
        let is_met = match (&self.wanted, value) {
            (Wanted::Nothing, _) => return is_missing == (self.operator == Operator::Equal),
            (_, FieldValue::Missing) => return false,
            (Wanted::Text(wanted), FieldValue::Text(text)) if self.operator.is_part() => {
                has_part(text, wanted)
            }
            (Wanted::Text(wanted), FieldValue::Text(text)) => is_same(text, wanted),
            (Wanted::Address(wanted), FieldValue::Text(text)) => {
                text.parse().is_ok_and(|address: IpAddr| address == *wanted)
            }
            (Wanted::Range(from, to), FieldValue::Number(number)) => match self.operator {
                Operator::AtLeast => number >= *from,
                Operator::Above => number > *to,
                Operator::AtMost => number <= *to,
                Operator::Below => number < *from,
                _ => (*from..=*to).contains(&number),
            },
            _ => return false,
        };
        let is_negated = matches!(self.operator, Operator::NotEqual | Operator::NotContains);
        is_met != is_negated
    }
}

/// True if the text has this part, which is in lower case.
pub(in crate::cli) fn has_part(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(part)
}

/// True if the text is this one, which is in lower case.
fn is_same(text: &str, wanted: &str) -> bool {
    text.len() == wanted.len() && text.eq_ignore_ascii_case(wanted)
        || text.to_lowercase() == *wanted
}

fn named(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.name == name)
}

/// Reads a number, or a class of statuses such as `4xx`.
fn numbers(text: &str, is_status: bool) -> Option<Wanted> {
    if let Some(hundred) = text.strip_suffix("xx").filter(|_| is_status) {
        let hundred = hundred.parse::<u8>().ok().filter(|hundred| (1..=9).contains(hundred))?;
        let from = f64::from(hundred) * 100.0;
        return Some(Wanted::Range(from, from + 99.0));
    }
    // Counters above 2^53 are not met in practice, and are still in the right order.
    let number: f64 = text.parse::<u64>().ok()?.to_string().parse().ok()?;
    let is_fitting = !is_status || (100.0..=999.0).contains(&number);
    is_fitting.then_some(Wanted::Range(number, number))
}

/// Conditions that a line meets together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct Expression(Vec<Condition>);

impl Expression {
    /// Reads an expression about events of these kinds.
    ///
    /// # Errors
    /// The word that is wrong, its place, and what could be there.
    pub(in crate::cli) fn read(text: &str, kinds: &[EventKind]) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("longer than {MAX_LENGTH} bytes"));
        }
        let mut parser = Parser { text, at: 0, kinds };
        let mut conditions = vec![parser.condition()?];
        while parser.and()? {
            conditions.push(parser.condition()?);
        }
        Ok(Self(conditions))
    }

    /// An expression of these conditions.
    pub(in crate::cli) const fn of(conditions: Vec<Condition>) -> Self {
        Self(conditions)
    }

    /// True if there is no condition.
    pub(in crate::cli) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if a condition is about this field.
    pub(in crate::cli) fn mentions(&self, name: &str) -> bool {
        self.0.iter().any(|condition| condition.field.name == name)
    }

    /// True if the line meets all conditions.
    pub(in crate::cli) fn holds_for(&self, line: &impl ComparedLine) -> bool {
        self.0.iter().all(|condition| condition.holds_for(line))
    }
}

/// The place in an expression that is being read.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    kinds: &'a [EventKind],
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// A mistake at a place of the text.
    fn wrong(&self, at: usize, why: &str) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        format!("character {}: {why}", before.chars().count() + 1)
    }

    /// Takes the word `and`; false at the end.
    fn and(&mut self) -> Result<bool, String> {
        self.skip_blanks();
        let rest = self.rest();
        if rest.is_empty() {
            return Ok(false);
        }
        let word = rest.split_whitespace().next().unwrap_or_default();
        if !word.eq_ignore_ascii_case("and") {
            return Err(self.wrong(
                self.at,
                &format!("'{word}' where 'and' is expected (write a value with blanks in quotes)"),
            ));
        }
        self.at += word.len();
        Ok(true)
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let field = self.field()?;
        self.skip_blanks();
        let at = self.at;
        let found = OPERATORS.iter().find(|(sign, _)| self.rest().starts_with(sign));
        let Some((sign, operator)) = found else {
            return Err(self.wrong(
                at,
                &format!("an operator is missing after '{}' (= != < <= > >= ~ !~)", field.name),
            ));
        };
        let misplaced = match field.content {
            Number => operator.is_part(),
            Text => operator.is_order(),
            Address => operator.is_part() || operator.is_order(),
        };
        if misplaced {
            let fitting = match field.content {
                Number => "= != < <= > >=",
                Text => "= != ~ !~",
                Address => "= !=",
            };
            return Err(self.wrong(at, &format!("'{}' takes {fitting}, not {sign}", field.name)));
        }
        self.at += sign.len();
        self.skip_blanks();
        let at = self.at;
        let (value, is_quoted) = self.value()?;
        let wrong = |what: &str| self.wrong(at, &format!("'{value}' is {what}"));
        let wanted = match field.content {
            _ if value == "null" && !is_quoted => {
                if operator.is_order() || operator.is_part() {
                    return Err(wrong("compared with = or != only"));
                }
                Wanted::Nothing
            }
            Text => Wanted::Text(value.to_lowercase()),
            Address => Wanted::Address(value.parse().map_err(|_| wrong("no IP address"))?),
            Number if field.name == "status" => numbers(&value, true)
                .ok_or_else(|| wrong("no status (write one such as 404, or 4xx)"))?,
            Number => numbers(&value, false).ok_or_else(|| wrong("no whole number"))?,
        };
        Ok(Condition { field, operator: *operator, wanted })
    }

    fn field(&mut self) -> Result<&'static Field, String> {
        self.skip_blanks();
        let is_part = |one: char| one.is_ascii_alphanumeric() || one == '_' || one == '.';
        let rest = self.rest();
        let end = rest.find(|one| !is_part(one)).unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or_default();
        let (at, is_here) =
            (self.at, |field: &&Field| field.kinds.iter().any(|kind| self.kinds.contains(kind)));
        let there_are = || {
            let names = FIELDS.iter().filter(is_here).map(|field| field.name);
            names.collect::<Vec<_>>().join(", ")
        };
        match named(name) {
            Some(field) if is_here(&field) => {
                self.at += end;
                Ok(field)
            }
            Some(field) => {
                let kinds = field.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>();
                let kinds = kinds.join(", ");
                Err(self.wrong(at, &format!("'{name}' is a field of {kinds} (see --what)")))
            }
            None if name.is_empty() => {
                Err(self.wrong(at, &format!("a field is missing (there are: {})", there_are())))
            }
            None => {
                Err(self
                    .wrong(at, &format!("'{name}': no such field (there are: {})", there_are())))
            }
        }
    }

    /// Takes a word, or text in quotes; true if it was in quotes.
    fn value(&mut self) -> Result<(String, bool), String> {
        let rest = self.rest();
        if let Some(inside) = rest.strip_prefix('"') {
            let end =
                inside.find('"').ok_or_else(|| self.wrong(self.at, "the quote is not closed"))?;
            self.at += end + 2;
            return Ok((inside.get(..end).unwrap_or_default().to_owned(), true));
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let value = rest.get(..end).unwrap_or_default();
        if value.is_empty() {
            return Err(self.wrong(self.at, "a value is missing"));
        }
        self.at += end;
        Ok((value.to_owned(), false))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line() -> Value {
        json!({"capture": "web", "flow": 7, "client": {"address": "10.0.0.1", "port": 40000},
               "server": {"address": "fd00::2", "port": 80}, "method": "GET", "status": 404,
               "host": "WWW.Example.com", "target": "/a b", "reason": null,
               "response_body": {"bytes": 12}})
    }

    fn holds(text: &str) -> bool {
        Expression::read(text, &[EventKind::Http]).unwrap().holds_for(&line())
    }

    #[test]
    fn conditions_are_met_together() {
        for text in [
            "status=404",
            "status = 4xx",
            "status>=400 and status < 500",
            "status!=5xx AND host=www.example.com",
            "host~EXAMPLE and method==get",
            "host!~org",
            "target=\"/a b\"",
            "client=10.0.0.1 and server=fd00:0::2 and server.port=80",
            "response_body.bytes>11 and request_body.bytes=null",
            "reason=null and status!=null",
            "status<=4xx",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in [
            "status=5xx",
            "status>4xx",
            "status>=400 and status<404",
            "host=example.com",
            "reason=OK",
            "reason!=OK",
            "reason!=null",
            "client!=10.0.0.1",
            "method~post",
        ] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn mistakes_have_a_place() {
        let wrong = |text: &str| Expression::read(text, &[EventKind::Http]).unwrap_err();
        for (text, at, part) in [
            ("", 1, "a field is missing (there are: capture, state, flow"),
            ("staus>=500", 1, "'staus': no such field"),
            ("host=a and sni=b", 12, "'sni' is a field of flows (see --what)"),
            ("host", 5, "an operator is missing after 'host'"),
            ("host>b", 5, "'host' takes = != ~ !~, not >"),
            ("status~4", 7, "'status' takes = != < <= > >=, not ~"),
            ("status=10xx", 8, "'10xx' is no status"),
            ("flow=x", 6, "'x' is no whole number"),
            ("client=local", 8, "'local' is no IP address"),
            ("host=a b", 8, "'b' where 'and' is expected"),
            ("host=a and", 11, "a field is missing"),
            ("host=", 6, "a value is missing"),
            ("host=\"a", 6, "the quote is not closed"),
            ("host~null", 6, "'null' is compared with = or != only"),
            ("target=ä and x=1", 14, "'x': no such field"),
        ] {
            let error = wrong(text);
            assert!(error.starts_with(&format!("character {at}: ")), "{text}: {error}");
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(wrong(&"a".repeat(MAX_LENGTH + 1)).contains("longer than"));
    }
}
