//! The structure that the published format of HAR 1.2 demands.

use serde_json::Value;

#[track_caller]
fn field<'v>(value: &'v Value, name: &str, is: fn(&Value) -> bool) -> &'v Value {
    let found = value.get(name).unwrap_or_else(|| panic!("no {name} in {value:#}"));
    assert!(is(found), "{name} is {found}");
    found
}

#[track_caller]
fn optional(value: &Value, name: &str, is: fn(&Value) -> bool) {
    if let Some(found) = value.get(name) {
        assert!(is(found), "{name} is {found}");
    }
}

#[track_caller]
fn known(value: &Value, names: &[&str]) {
    for name in value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys() {
        assert!(
            name.starts_with('_') || names.contains(&name.as_str()),
            "{name} is not of HAR 1.2"
        );
    }
}

#[track_caller]
fn items<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    field(value, name, Value::is_array).as_array().expect("a list")
}

fn is_size(value: &Value) -> bool {
    value.as_i64().is_some_and(|size| size >= -1)
}

fn is_iso_8601(value: &Value) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd";
    let Some(text) = value.as_str() else { return false };
    let fits = |(got, wanted): (char, char)| match wanted {
        'd' => got.is_ascii_digit(),
        wanted => got == wanted,
    };
    text.len() > pattern.len() && text.chars().zip(pattern.chars()).all(fits) && text.ends_with('Z')
}

/// Checks a whole `http.har` against HAR 1.2.
#[track_caller]
pub(crate) fn har_is_valid(har: &Value, entries: usize) {
    known(har, &["log"]);
    let log = field(har, "log", Value::is_object);
    known(log, &["version", "creator", "browser", "pages", "entries", "comment"]);
    assert_eq!(log["version"], "1.2");
    let creator = field(log, "creator", Value::is_object);
    for name in ["name", "version"] {
        let _ = field(creator, name, Value::is_string);
    }
    let all = items(log, "entries");
    assert_eq!(all.len(), entries, "{har:#}");
    all.iter().for_each(har_entry);
}

#[track_caller]
fn har_entry(entry: &Value) {
    known(
        entry,
        &[
            "pageref",
            "startedDateTime",
            "time",
            "request",
            "response",
            "cache",
            "timings",
            "serverIPAddress",
            "connection",
            "comment",
        ],
    );
    let _ = field(entry, "startedDateTime", is_iso_8601);
    let time = field(entry, "time", Value::is_number).as_f64().unwrap();
    let _ = field(entry, "cache", Value::is_object);
    for name in ["serverIPAddress", "connection", "comment", "pageref"] {
        optional(entry, name, Value::is_string);
    }
    let timings = field(entry, "timings", Value::is_object);
    known(timings, &["blocked", "dns", "connect", "send", "wait", "receive", "ssl", "comment"]);
    // These three must not be negative; the others are -1 if they do not apply.
    let sum: f64 = ["send", "wait", "receive"]
        .map(|name| field(timings, name, |value| value.as_f64().is_some_and(|time| time >= 0.0)))
        .iter()
        .filter_map(|value| value.as_f64())
        .sum();
    let others: f64 = ["blocked", "dns", "connect"]
        .iter()
        .filter_map(|name| timings.get(name)?.as_f64())
        .filter(|time| *time >= 0.0)
        .sum();
    assert!((time - sum - others).abs() < 1e-6, "time is not the sum of timings: {entry:#}");

    let request = field(entry, "request", Value::is_object);
    known(
        request,
        &[
            "method",
            "url",
            "httpVersion",
            "cookies",
            "headers",
            "queryString",
            "postData",
            "headersSize",
            "bodySize",
            "comment",
        ],
    );
    for name in ["method", "url", "httpVersion"] {
        let _ = field(request, name, Value::is_string);
    }
    har_message(request);
    har_pairs(items(request, "queryString"));
    if let Some(post) = request.get("postData") {
        known(post, &["mimeType", "params", "text", "comment"]);
        let _ = field(post, "mimeType", Value::is_string);
        let _ = field(post, "text", Value::is_string);
        let _ = items(post, "params");
    }

    let response = field(entry, "response", Value::is_object);
    known(
        response,
        &[
            "status",
            "statusText",
            "httpVersion",
            "cookies",
            "headers",
            "content",
            "redirectURL",
            "headersSize",
            "bodySize",
            "comment",
        ],
    );
    let _ = field(response, "status", Value::is_u64);
    for name in ["statusText", "httpVersion", "redirectURL"] {
        let _ = field(response, name, Value::is_string);
    }
    har_message(response);
    let content = field(response, "content", Value::is_object);
    known(content, &["size", "compression", "mimeType", "text", "encoding", "comment"]);
    let _ = field(content, "size", is_size);
    let _ = field(content, "mimeType", Value::is_string);
    optional(content, "compression", Value::is_i64);
    for name in ["text", "encoding", "comment"] {
        optional(content, name, Value::is_string);
    }
}

#[track_caller]
fn har_message(message: &Value) {
    for name in ["headersSize", "bodySize"] {
        let _ = field(message, name, is_size);
    }
    har_pairs(items(message, "headers"));
    for cookie in items(message, "cookies") {
        let names = ["name", "value", "path", "domain", "expires", "httpOnly", "secure", "comment"];
        known(cookie, &names);
        for name in ["name", "value"] {
            let _ = field(cookie, name, Value::is_string);
        }
        optional(cookie, "expires", is_iso_8601);
        optional(cookie, "httpOnly", Value::is_boolean);
        optional(cookie, "secure", Value::is_boolean);
    }
}

#[track_caller]
fn har_pairs(pairs: &[Value]) {
    for pair in pairs {
        known(pair, &["name", "value", "comment"]);
        for name in ["name", "value"] {
            let _ = field(pair, name, Value::is_string);
        }
    }
}
