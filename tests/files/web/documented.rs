//! The interface is as docs/openapi.json says: every path is asked, and every answer is checked
//! against its schema.

use std::collections::BTreeSet;

use pcapfs_tests::{flows, schema, skip_unless};
use serde_json::Value;

use crate::support::{Reply, Web, browsed};

/// The description of an operation.
#[track_caller]
fn operation(path: &str, method: &str) -> &'static Value {
    let found = schema::schema("openapi")["paths"][path].get(method);
    found.unwrap_or_else(|| panic!("{method} {path} is not described"))
}

/// Checks that an answer is described, and as it is.
#[track_caller]
fn check(path: &str, method: &str, reply: &Reply) {
    let responses = &operation(path, method)["responses"];
    let status = reply.status.to_string();
    assert!(responses.get(&status).is_some(), "{method} {path}: {status} is not described");
    let kind = reply.header("content-type").map(|kind| kind.split(';').next().unwrap_or_default());
    if kind != Some("application/json") {
        return;
    }
    let pointer = match responses[&status]["$ref"].as_str() {
        Some(reference) => format!("{}/content/application~1json/schema", &reference[1..]),
        None => {
            let path = path.replace('~', "~0").replace('/', "~1");
            format!("/paths/{path}/{method}/responses/{status}/content/application~1json/schema")
        }
    };
    schema::check_at("openapi", &pointer, &reply.json());
}

#[test]
fn every_path_answers_as_described() {
    skip_unless!(mount, "curl");
    let filed = browsed();
    let web = Web::start(&filed.daemon, &[]);
    let body = flows::listed(&filed.file(1, "bodies")).remove(0);
    let mut asked = BTreeSet::new();
    let mut get = |path: &'static str, concrete: &str, status: u16| {
        let reply = web.get(concrete);
        assert_eq!(reply.status, status, "{concrete}: {}", String::from_utf8_lossy(&reply.body));
        check(path, "get", &reply);
        asked.insert((path, "get"));
    };
    get("/", "/", 200);
    get("/", "/?token=wrong", 403);
    get("/api/v1/captures", "api/v1/captures", 200);
    get("/api/v1/captures/{capture}", "api/v1/captures/web", 200);
    get("/api/v1/captures/{capture}", "api/v1/captures/lan", 404);
    get("/api/v1/captures/{capture}/readers", "api/v1/captures/web/readers", 200);
    let list = "/api/v1/captures/{capture}/flows";
    get(list, "api/v1/captures/web/flows?limit=2", 200);
    get(list, "api/v1/captures/web/flows?state=x", 400);
    get(list, "api/v1/captures/web/flows?after=0-1", 410);
    let flow = "/api/v1/captures/{capture}/flows/{flow}";
    get(flow, "api/v1/captures/web/flows/1", 200);
    get(flow, "api/v1/captures/web/flows/99", 404);
    let packets = "/api/v1/captures/{capture}/flows/{flow}/packets";
    get(packets, "api/v1/captures/web/flows/1/packets?limit=3", 200);
    get(packets, "api/v1/captures/web/flows/3/packets", 200);
    let transactions = "/api/v1/captures/{capture}/http";
    get(transactions, "api/v1/captures/web/http?limit=3", 200);
    get(transactions, "api/v1/captures/web/http?status=x", 400);
    let savefile = "/captures/{capture}/{savefile}";
    get(savefile, "captures/web/replay.pcap?packets=1", 200);
    get(savefile, "captures/web/replay.pcapng?filter=(", 400);
    let file = "/captures/{capture}/flows/{flow}/{file}";
    get(file, &format!("captures/web/flows/1/bodies/{body}"), 200);
    get(file, "captures/web/flows/1/nothing", 404);
    for (path, concrete) in [
        ("/api/v1/captures/{capture}/events", "api/v1/captures/web/events"),
        ("/api/v1/events", "api/v1/events"),
    ] {
        let head = web.ask(&["-I"], concrete);
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        check(path, "get", &head);
        asked.insert((path, "get"));
    }
    let json = ["-X", "POST", "-H", "Content-Type: application/json"];
    for (path, verb) in
        [("/api/v1/captures/{capture}/stop", "stop"), ("/api/v1/captures/{capture}/start", "start")]
    {
        let concrete = format!("api/v1/captures/web/{verb}");
        check(path, "post", &web.ask(&json, &concrete));
        check(path, "post", &web.ask(&["-X", "POST"], &concrete));
        asked.insert((path, "post"));
    }
    let described = schema::schema("openapi")["paths"].as_object().unwrap();
    for (path, methods) in described {
        for method in methods.as_object().unwrap().keys() {
            assert!(
                asked.iter().any(|(known, by)| known == path && by == method),
                "{method} {path} is described and not tested"
            );
        }
    }
}

#[test]
fn every_parameter_is_described() {
    skip_unless!(mount, "curl");
    let filed = browsed();
    let web = Web::start(&filed.daemon, &[]);
    // A field that there is not is answered with the list of those that there are.
    for (path, concrete) in [
        ("/api/v1/captures/{capture}/flows", "api/v1/captures/web/flows"),
        ("/api/v1/captures/{capture}/flows/{flow}/packets", "api/v1/captures/web/flows/1/packets"),
        ("/api/v1/captures/{capture}/http", "api/v1/captures/web/http"),
        ("/api/v1/captures/{capture}/events", "api/v1/captures/web/events"),
        ("/captures/{capture}/{savefile}", "captures/web/live.pcap"),
    ] {
        let reply = web.get(&format!("{concrete}?nothing=1"));
        let text = reply.json()["error"].as_str().unwrap().to_owned();
        let (_, names) = text.split_once("(there are: ").unwrap_or_else(|| panic!("{text}"));
        let names: BTreeSet<&str> = names.trim_end_matches(')').split(", ").collect();
        let described = operation(path, "get")["parameters"].as_array().unwrap().iter();
        let described = described.map(|parameter| match parameter["$ref"].as_str() {
            Some(reference) => schema::schema("openapi").pointer(&reference[1..]).unwrap(),
            None => parameter,
        });
        let described: BTreeSet<&str> = described
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(described, names, "{path}");
    }
}
