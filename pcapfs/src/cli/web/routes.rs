//! From a request to its handler: first who may ask, then what is asked.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{ALLOW, HeaderName, HeaderValue, LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use super::access::{Connected, Visitor};
use super::answer::{Answer, Handled, Problem, empty, json};
use super::events::{self, EventRequest};
use super::files;
use super::flows;
use super::page;
use super::query::{self, Query};
use super::server::Server;
use super::streams::{self, StreamRequest};
use crate::cli::outlet::daemon::CaptureView;

/// Headers of every answer. No other site may embed it or learn anything from it.
const COMMON: [(&str, &str); 3] = [
    ("x-content-type-options", "nosniff"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
];

/// The page may load nothing from anywhere else.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Answers a request.
///
/// # Errors
/// None.
pub(super) async fn answer(
    server: Arc<Server>,
    connected: Arc<Connected>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    // Bodies are not read: no request needs one.
    let (head, _) = request.into_parts();
    let handled = handle(&server, &connected, &head).await;
    let mut answer = handled.unwrap_or_else(Problem::answer);
    add_common(answer.headers_mut());
    Ok(answer)
}

fn add_common(headers: &mut HeaderMap) {
    for (name, value) in COMMON {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let policy = http::header::CONTENT_SECURITY_POLICY;
    headers.entry(policy).or_insert(HeaderValue::from_static(POLICY));
}

async fn handle(server: &Arc<Server>, connected: &Connected, head: &Parts) -> Handled {
    let mut query = Query::read(head.uri.query())?;
    let segments = query::segments(head.uri.path())?;
    if head.uri.path() == "/"
        && head.method == Method::GET
        && let Some(token) = query.take("token")
    {
        return server.log_in(connected, head, &token);
    }
    let visitor = server.access.check(connected, head)?;
    let route = Route { server, visitor: &visitor, head, query };
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    route.answer(&segments).await
}

/// A request that may be answered.
struct Route<'a> {
    server: &'a Arc<Server>,
    visitor: &'a Visitor,
    head: &'a Parts,
    query: Query,
}

impl Route<'_> {
    async fn answer(self, segments: &[&str]) -> Handled {
        let daemon = &self.server.daemon;
        match segments {
            ["api", "v1", "captures", name, verb @ ("start" | "stop")] => {
                self.only(&[Method::POST])?;
                self.query.end("")?;
                daemon.steer(name, *verb == "start").await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            segments => {
                self.only(&[Method::GET, Method::HEAD])?;
                self.read(segments).await
            }
        }
    }

    /// Answers a request that changes nothing.
    async fn read(self, segments: &[&str]) -> Handled {
        let daemon = &self.server.daemon;
        let is_head = self.head.method == Method::HEAD;
        match segments {
            [""] => {
                self.query.end("token")?;
                Ok(page::page(self.head))
            }
            ["assets", name] => page::file(self.head, &format!("assets/{name}")),
            ["api", "v1", "captures"] => {
                #[derive(Serialize)]
                struct List {
                    captures: Vec<CaptureView>,
                }
                self.query.end("")?;
                Ok(json(&List { captures: daemon.captures("").await? }))
            }
            ["api", "v1", "captures", name] => {
                self.query.end("")?;
                Ok(json(&daemon.capture(name).await?))
            }
            ["api", "v1", "captures", name, "readers"] => {
                self.query.end("")?;
                flows::list_readers(self.server, name).await
            }
            ["api", "v1", "captures", name, "flows"] => {
                flows::list_flows(self.server, name, self.query).await
            }
            ["api", "v1", "captures", name, "flows", flow] => {
                self.query.end("")?;
                flows::show_flow(self.server, name, flow).await
            }
            ["api", "v1", "captures", name, "flows", flow, "packets"] => {
                flows::list_packets(self.server, name, flow, self.query).await
            }
            ["api", "v1", "captures", name, "http"] => {
                flows::list_transactions(self.server, name, self.query).await
            }
            ["api", "v1", "captures", name, "events"] => {
                let last = self.head.headers.get("last-event-id");
                let last = last.and_then(|last| last.to_str().ok());
                let request = EventRequest::of_capture(self.query, last)?;
                events::serve(self.server, self.visitor, Some(name), request, is_head).await
            }
            ["api", "v1", "events"] => {
                let request = EventRequest::of_all(self.query)?;
                events::serve(self.server, self.visitor, None, request, is_head).await
            }
            ["captures", name, file] => {
                let request = StreamRequest::read(file, self.query)?;
                streams::serve(self.server, self.visitor, name, request, is_head).await
            }
            ["captures", name, "flows", flow, file @ ..] if !file.is_empty() => {
                let place = (*name, *flow, file);
                files::serve(self.server, self.visitor, self.head, place, self.query).await
            }
            _ => Err(Problem::missing(format!(
                "{}: no such path (see /api/v1/captures)",
                self.head.uri.path()
            ))),
        }
    }

    /// Checks the method of the request.
    fn only(&self, methods: &[Method]) -> Result<(), Problem> {
        if methods.contains(&self.head.method) {
            return Ok(());
        }
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let (method, path) = (&self.head.method, self.head.uri.path());
        let text = format!("{method} {path}: not possible here ({} is)", names.join(" or "));
        Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, text).with(ALLOW, &names.join(", ")))
    }
}

/// The answer that sends a browser to the page with a cookie.
pub(super) fn logged_in(cookie: &str) -> Handled {
    let cookie = HeaderValue::try_from(cookie);
    let cookie = cookie.map_err(|_| Problem::unavailable("the cookie cannot be written"))?;
    let mut answer = empty(StatusCode::SEE_OTHER);
    answer.headers_mut().insert(SET_COOKIE, cookie);
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
    let no_store = HeaderValue::from_static("no-store");
    answer.headers_mut().insert(http::header::CACHE_CONTROL, no_store);
    Ok(answer)
}
