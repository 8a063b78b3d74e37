//! The JSON Schemas in `docs/schema`, and checks that the daemon's files match them.
//!
//! Only the keywords that they use are implemented here; any other keyword is an error, so that no
//! part of them goes unchecked.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use serde_json::{Map, Value};

/// Keywords that do not restrict a value.
const REMARKS: [&str; 5] = ["$schema", "$id", "title", "description", "$defs"];

/// The only pattern in the schemas: that of times.
const TIME: &str = "^[0-9]{4,}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}Z$";

/// The name of the description of the HTTP interface, `docs/openapi.json`. Its schemas refer to the
/// others as `schema/NAME.schema.json`.
const OPENAPI: &str = "openapi";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema")
}

/// Names of all schemas: those of files, without `.schema.json`.
#[must_use]
#[track_caller]
pub fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).expect("docs/schema is there");
    let names = files.map(|file| file.expect("it can be listed").file_name());
    let names = names.map(|name| name.into_string().expect("a name in ASCII"));
    let mut names: Vec<_> =
        names.map(|name| name.strip_suffix(".schema.json").expect(&name).to_owned()).collect();
    names.sort();
    names
}

/// Names of what commands print or publish. The tests of these commands check each line.
pub const OF_COMMANDS: [&str; 3] = ["receive", "segment", "send"];

/// Names of the protocols that have lines: each is also a field of `meta.json`.
#[must_use]
#[track_caller]
pub fn of_protocols() -> Vec<String> {
    let fields = schema("meta")["properties"].as_object().expect("meta.json has fields");
    names().into_iter().filter(|name| fields.contains_key(name)).collect()
}

/// The schema of this name.
#[must_use]
#[track_caller]
pub fn schema(name: &str) -> &'static Value {
    static KNOWN: LazyLock<Mutex<HashMap<String, &'static Value>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().expect("nobody panics with it");
    if let Some(schema) = known.get(name) {
        return schema;
    }
    let path = match name {
        OPENAPI => folder().with_file_name("openapi.json"),
        name => folder().join(format!("{name}.schema.json")),
    };
    let text = fs::read_to_string(&path);
    let schema = text.ok().and_then(|text| serde_json::from_str(&text).ok());
    let schema: Value = schema.unwrap_or_else(|| panic!("{} is no schema", path.display()));
    // There are few of them, and tests are short.
    let schema: &'static Value = Box::leak(Box::new(schema));
    known.insert(name.to_owned(), schema);
    schema
}

/// Checks that a value matches the schema of this name.
#[track_caller]
pub fn check(name: &str, value: &Value) {
    let at = Place { document: name, schema: schema(name) };
    if let Err(why) = valid(at, value, "") {
        panic!("against docs/schema/{name}.schema.json: {why} in {value:#}");
    }
}

/// Checks that a value matches the schema at a place of the document of this name, such as
/// `openapi`.
#[track_caller]
pub fn check_at(name: &str, pointer: &str, value: &Value) {
    let found = schema(name).pointer(pointer);
    let schema = found.unwrap_or_else(|| panic!("no {pointer} in {name}"));
    if let Err(why) = valid(Place { document: name, schema }, value, "") {
        panic!("against {pointer} of {name}: {why} in {value:#}");
    }
}

/// Checks a file of the tree, or one of its lines, if there is a schema for it.
#[track_caller]
pub fn check_file(path: &Path, value: &Value) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let lines = name.strip_suffix(".jsonl");
    match lines.filter(|lines| names().iter().any(|known| known == lines)) {
        Some(lines) => check(lines, value),
        None if name == "meta.json" => check("meta", value),
        None => {}
    }
}

/// A schema, and the document it is in.
#[derive(Clone, Copy)]
struct Place<'a> {
    document: &'a str,
    schema: &'a Value,
}

impl<'a> Place<'a> {
    fn within(self, schema: &'a Value) -> Self {
        Self { schema, ..self }
    }

    /// The schema of a reference: `#/$defs/x`, `other.schema.json`, or one in the other.
    fn resolve(self, reference: &'a str) -> Result<Self, String> {
        let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let document = document.strip_prefix("schema/").unwrap_or(document);
        let document = match document.strip_suffix(".schema.json") {
            Some(name) => name,
            None if document.is_empty() => self.document,
            None => return Err(format!("{reference} is no reference")),
        };
        let schema = schema(document).pointer(fragment);
        Ok(Self { document, schema: schema.ok_or_else(|| format!("no {reference}"))? })
    }
}

fn valid(at: Place<'_>, value: &Value, path: &str) -> Result<(), String> {
    let fail = |what: &str| Err(format!("{path:?} {what}, and is {value}"));
    let Value::Object(schema) = at.schema else {
        let is_any = at.schema == &Value::Bool(true);
        return if is_any { Ok(()) } else { fail("may not be there") };
    };
    for (keyword, says) in schema {
        let is_so = match keyword.as_str() {
            word if REMARKS.contains(&word) => true,
            "$ref" => {
                let reference = says.as_str().unwrap_or_default();
                valid(at.resolve(reference)?, value, path)?;
                true
            }
            "anyOf" => {
                let found = list(says).iter().map(|one| valid(at.within(one), value, path));
                let failed: Vec<_> = found.filter_map(Result::err).collect();
                if failed.len() == list(says).len() {
                    return Err(failed.join("; "));
                }
                true
            }
            "type" => match says {
                Value::Array(types) => types.iter().any(|one| is_of(value, one)),
                one => is_of(value, one),
            },
            "enum" => list(says).contains(value),
            "const" => says == value,
            "minimum" => value.as_i64().is_none_or(|it| says.as_i64().is_some_and(|min| it >= min)),
            "maximum" => value.as_u64().is_none_or(|it| says.as_u64().is_some_and(|max| it <= max)),
            "pattern" if says == TIME => value.as_str().is_none_or(is_time),
            "required" => value.as_object().is_none_or(|object| {
                list(says).iter().all(|name| object.contains_key(name.as_str().unwrap_or_default()))
            }),
            "properties" | "additionalProperties" => {
                if let Value::Object(object) = value {
                    members(at, schema, object, path)?;
                }
                true
            }
            "prefixItems" | "items" => {
                if let Value::Array(items) = value {
                    elements(at, schema, items, path)?;
                }
                true
            }
            "minItems" => value
                .as_array()
                .is_none_or(|items| says.as_u64().is_some_and(|min| items.len() as u64 >= min)),
            other => return Err(format!("{other:?} in {} is not known", at.document)),
        };
        if !is_so {
            return fail(&format!("is to have {keyword} {says}"));
        }
    }
    Ok(())
}

fn members(
    at: Place<'_>,
    schema: &Map<String, Value>,
    object: &Map<String, Value>,
    path: &str,
) -> Result<(), String> {
    for (name, member) in object {
        let known = schema.get("properties").and_then(|known| known.get(name));
        let Some(says) = known.or_else(|| schema.get("additionalProperties")) else { continue };
        valid(at.within(says), member, &format!("{path}/{name}"))?;
    }
    Ok(())
}

fn elements(
    at: Place<'_>,
    schema: &Map<String, Value>,
    items: &[Value],
    path: &str,
) -> Result<(), String> {
    let first = schema.get("prefixItems").map(list).unwrap_or_default();
    for (number, item) in items.iter().enumerate() {
        let Some(says) = first.get(number).or_else(|| schema.get("items")) else { continue };
        valid(at.within(says), item, &format!("{path}/{number}"))?;
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn is_of(value: &Value, name: &Value) -> bool {
    match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    }
}

/// True if the text matches the pattern of times.
fn is_time(text: &str) -> bool {
    let shape: String =
        text.chars().map(|one| if one.is_ascii_digit() { '0' } else { one }).collect();
    let rest = shape.trim_start_matches('0');
    shape.len() - rest.len() >= 4 && rest == "-00-00T00:00:00.000000000Z"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn deviations_from_the_schema_are_found() {
        let line = json!({
            "file": "live.pcap", "pid": 1, "uid": 0, "comm": "cat",
            "opened": "2026-01-31T23:59:59.000000000Z",
            "delivered_packets": 1, "delivered_bytes": 2, "lost_packets": 0, "lag_packets": 0,
            "blocked": true,
        });
        check("readers", &line);
        let edits: [fn(&mut Map<String, Value>); 5] = [
            |line| drop(line.remove("pid")),
            |line| drop(line.insert("other".to_owned(), json!(1))),
            |line| drop(line.insert("pid".to_owned(), json!(-1))),
            |line| drop(line.insert("comm".to_owned(), Value::Null)),
            |line| drop(line.insert("opened".to_owned(), json!("2026-01-31"))),
        ];
        for edit in edits {
            let mut line = line.clone();
            edit(line.as_object_mut().unwrap());
            let at = Place { document: "readers", schema: schema("readers") };
            assert!(valid(at, &line, "").is_err(), "{line}");
        }
    }

    #[test]
    fn schemas_are_of_one_draft_and_closed() {
        fn closed(value: &Value) -> bool {
            let is_closed = value["type"] != "object" || value["additionalProperties"] == false;
            is_closed
                && match value {
                    Value::Object(members) => members.values().all(closed),
                    Value::Array(items) => items.iter().all(closed),
                    _ => true,
                }
        }
        assert!(names().len() >= 7, "{:?}", names());
        for name in names() {
            let schema = schema(&name);
            assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
            assert_eq!(schema["$id"], format!("{name}.schema.json"));
            assert!(closed(schema), "{name}");
        }
    }
}
