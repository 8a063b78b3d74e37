//! Who is let in, and which requests are those of the page or of a program, and not of another
//! site in the same browser.
//!
//! A browser of the user who runs the server needs no password on loopback, since the kernel says
//! whose it is. So any site that this browser shows could send requests with that user's rights.
//! Three checks keep them out: the name in `Host` must be one of this server (DNS rebinding gives a
//! foreign one), the browser must not say that another site asks (`Sec-Fetch-Site`, `Origin`), and
//! no GET changes anything.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderName, ORIGIN, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode};

use super::answer::Problem;
use super::tokens::Tokens;
use crate::fs::user_name;

/// Headers that proxies add. The kernel's answer about such a connection is about the proxy.
const OF_PROXIES: [HeaderName; 4] = [
    http::header::FORWARDED,
    http::header::VIA,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
];

/// The site that sends a request, as seen from ours (Fetch Metadata, W3C).
const FETCH_SITE: &str = "sec-fetch-site";

/// The purpose of a request (Fetch Metadata, W3C).
const FETCH_MODE: &str = "sec-fetch-mode";

/// Root.
const ROOT: u32 = 0;

/// A client that was let in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Visitor {
    /// By the kernel, as this user.
    User(u32),
    /// By a token or its cookie, from this address.
    Token(IpAddr),
    /// By the certificate of this name.
    Certificate(String),
}

/// The facts about a connection that do not come from its client.
#[derive(Clone, Debug)]
pub(super) struct Connected {
    pub(super) peer: SocketAddr,
    /// The user at the other end, if it is on this machine and known for certain.
    pub(super) user: Option<u32>,
    /// The name of its certificate, if that lets it in.
    pub(super) certificate: Option<String>,
}

/// The rules of a server.
#[derive(Debug)]
pub(super) struct Access {
    /// The user who runs the server.
    own: u32,
    /// Names of the server beside `localhost` and addresses, in lower case.
    hosts: Vec<String>,
    /// Of the cookie. Browsers give a cookie to all ports of a host, so the port is in it.
    cookie: String,
    is_tls: bool,
    tokens: Tokens,
}

impl Access {
    pub(super) fn new(own: u32, port: u16, hosts: &[String], is_tls: bool, tokens: Tokens) -> Self {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { own, hosts, cookie: format!("pcapfs-{port}"), is_tls, tokens }
    }

    /// Checks that the kernel's word about a user lets it in.
    pub(super) const fn lets_in(&self, user: u32) -> bool {
        user == self.own || user == ROOT
    }

    /// Checks a request before anything is done for it.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn check(&self, connected: &Connected, request: &Parts) -> Result<Visitor, Problem> {
        let is_by_address = self.check_host(request)?;
        self.check_site(request)?;
        self.visitor(connected, request, is_by_address)
    }

    /// Logs a browser in. Returns the cookie, as it is set, and the token for the next login if this
    /// one is used up.
    ///
    /// # Errors
    /// The token is wrong, or used up; and the errors of [`Access::check`] about sites.
    pub(super) fn log_in(
        &self,
        request: &Parts,
        token: &str,
    ) -> Result<(String, Option<String>), Problem> {
        self.check_host(request)?;
        self.check_site(request)?;
        let login = self.tokens.log_in(token).ok_or_else(|| {
            Problem::new(
                StatusCode::FORBIDDEN,
                "token: wrong, or used already (pcapfs web has printed the address for the next \
                 login)",
            )
        })?;
        let secure = if self.is_tls { "; Secure" } else { "" };
        let (name, value) = (&self.cookie, login.cookie);
        let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}");
        Ok((cookie, login.next))
    }

    /// Checks the name by which the server is called. Returns whether it is an address or
    /// `localhost`.
    fn check_host(&self, request: &Parts) -> Result<bool, Problem> {
        let host = only(&request.headers, &HOST).and_then(|host| host.parse::<Authority>().ok());
        let host = host.ok_or_else(|| Problem::wrong("Host: missing, twice, or no name"))?;
        // The form for proxies names a host of its own.
        let named = request.uri.authority().into_iter().chain([&host]);
        let mut is_by_address = true;
        for authority in named {
            let name = authority.host().trim_start_matches('[').trim_end_matches(']');
            if name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() {
                continue;
            }
            is_by_address = false;
            if !self.hosts.iter().any(|known| name.eq_ignore_ascii_case(known)) {
                return Err(Problem::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    format!(
                        "Host: {name}: not a name of this server (call it by its address, or start \
                         it with: pcapfs web --host {name})"
                    ),
                ));
            }
        }
        Ok(is_by_address)
    }

    /// Checks that no other site sends the request.
    fn check_site(&self, request: &Parts) -> Result<(), Problem> {
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let site = header(FETCH_SITE);
        let is_link = request.method == Method::GET
            && request.uri.path() == "/"
            && header(FETCH_MODE) == Some("navigate");
        let is_foreign = match site {
            Some("same-origin" | "none") => false,
            Some(_) => !is_link,
            None => false,
        };
        let origin = request.headers.get(ORIGIN);
        let is_other_origin = origin.is_some_and(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            let place = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            let host = only(&request.headers, &HOST).unwrap_or_default();
            !place.is_some_and(|place| place.eq_ignore_ascii_case(host))
        });
        if is_foreign || is_other_origin {
            let why = "another site in your browser sends this request, and may not";
            return Err(Problem::new(StatusCode::FORBIDDEN, why));
        }
        let is_json = header(CONTENT_TYPE.as_str()).is_some_and(|kind| {
            kind.split(';').next().is_some_and(|kind| kind.trim() == "application/json")
        });
        // A form of another site cannot have this type.
        if request.method == Method::POST && !is_json {
            let why = "Content-Type: write application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        Ok(())
    }

    fn visitor(
        &self,
        connected: &Connected,
        request: &Parts,
        is_by_address: bool,
    ) -> Result<Visitor, Problem> {
        let headers = &request.headers;
        if let Some(name) = &connected.certificate {
            return Ok(Visitor::Certificate(name.clone()));
        }
        let bearer = only(headers, &AUTHORIZATION).and_then(|text| text.strip_prefix("Bearer "));
        let is_known = bearer.is_some_and(|token| self.tokens.knows_lasting(token.trim()))
            || self.cookies(headers).any(|cookie| self.tokens.knows_cookie(cookie));
        if is_known {
            return Ok(Visitor::Token(connected.peer.ip().to_canonical()));
        }
        let is_proxied = OF_PROXIES.iter().any(|name| headers.contains_key(name));
        let own = || user_name(self.own);
        match connected.user.filter(|_| is_by_address && !is_proxied) {
            Some(user) if self.lets_in(user) => Ok(Visitor::User(user)),
            Some(user) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!(
                    "this connection is of user {}: only {}, who runs pcapfs web, and root are let \
                     in without a token (the address that pcapfs web has printed has one; programs \
                     send that of --token-file, as Authorization: Bearer TOKEN)",
                    user_name(user),
                    own(),
                ),
            )),
            None => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                format!(
                    "log in first: open the address with a token that pcapfs web has printed for \
                     {}; programs send the token of --token-file, as Authorization: Bearer TOKEN",
                    own()
                ),
            )
            .with(WWW_AUTHENTICATE, "Bearer")),
        }
    }

    /// The values of our cookie.
    fn cookies<'h>(&'h self, headers: &'h HeaderMap) -> impl Iterator<Item = &'h str> {
        let texts = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| text.split(';')).filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            (name.trim() == self.cookie).then_some(value.trim())
        })
    }
}

/// The value of a header that may come once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const OWN: u32 = 54_321;

    fn access() -> (Access, String) {
        let (tokens, token) = Tokens::once().unwrap();
        (Access::new(OWN, 8020, &["Tap.example".to_owned()], false, tokens), token)
    }

    fn connected(user: Option<u32>) -> Connected {
        Connected { peer: ([127, 0, 0, 1], 4000).into(), user, certificate: None }
    }

    /// A request with these headers, a word and its value each.
    fn request(first: &str, headers: &[(&str, &str)]) -> Parts {
        let (method, target) = first.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(target);
        if headers.iter().all(|(name, _)| *name != "Host") {
            request = request.header("Host", "127.0.0.1:8020");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(user: Option<u32>, first: &str, headers: &[(&str, &str)]) -> u16 {
        let (access, _) = access();
        match access.check(&connected(user), &request(first, headers)) {
            Ok(_) => 200,
            Err(problem) => problem.status.as_u16(),
        }
    }

    #[test]
    fn the_kernel_lets_in_the_own_user_and_root() {
        for (user, wanted) in [(Some(OWN), 200), (Some(0), 200), (Some(1), 403), (None, 401)] {
            assert_eq!(status(user, "GET /", &[]), wanted, "{user:?}");
        }
        // Behind a proxy of root may be anybody.
        for header in ["Forwarded", "Via", "X-Forwarded-For", "X-Real-IP"] {
            assert_eq!(status(Some(0), "GET /", &[(header, "x")]), 401, "{header}");
        }
        assert_eq!(status(Some(0), "GET /", &[("Host", "tap.example")]), 401);
    }

    #[test]
    fn foreign_names_are_misdirected() {
        for host in ["localhost", "LOCALHOST:8020", "127.0.0.1", "[::1]:8020", "192.0.2.1:80"] {
            assert_eq!(status(Some(OWN), "GET /", &[("Host", host)]), 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8020"] {
            assert_eq!(status(Some(OWN), "GET /", &[("Host", host)]), 421, "{host}");
        }
        for host in ["", "a b", "127.0.0.1:8020:1"] {
            assert_eq!(status(Some(OWN), "GET /", &[("Host", host)]), 400, "{host}");
        }
        let twice = [("Host", "localhost"), ("Host", "evil.example")];
        assert_eq!(status(Some(OWN), "GET /", &twice), 400);
        assert_eq!(status(Some(OWN), "GET http://evil.example/", &[]), 421);
    }

    #[test]
    fn other_sites_are_refused() {
        let own = |first: &str, headers: &[(&str, &str)]| status(Some(OWN), first, headers);
        for (site, wanted) in
            [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)]
        {
            assert_eq!(own("GET /api/v1/captures", &[("Sec-Fetch-Site", site)]), wanted);
        }
        let link = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")];
        assert_eq!((own("GET /", &link), own("GET /api/v1/captures", &link)), (200, 403));
        let json = ("Content-Type", "application/json");
        for (origin, wanted) in [
            ("http://127.0.0.1:8020", 200),
            ("http://127.0.0.1:3000", 403),
            ("http://evil.example", 403),
            ("null", 403),
        ] {
            assert_eq!(own("POST /x", &[json, ("Origin", origin)]), wanted, "{origin}");
        }
        assert_eq!(own("POST /x", &[("Content-Type", "text/plain")]), 415);
        assert_eq!((own("POST /x", &[]), own("POST /x", &[json])), (415, 200));
    }

    #[test]
    fn a_token_gives_a_cookie_that_lets_in() {
        let (access, token) = access();
        let stranger = connected(Some(1));
        let head = request("GET /", &[]);
        assert_eq!(access.log_in(&head, "wrong").unwrap_err().status, StatusCode::FORBIDDEN);
        let foreign = request("GET /", &[("Host", "evil.example")]);
        assert!(access.log_in(&foreign, &token).is_err());
        let (cookie, next) = access.log_in(&head, &token).unwrap();
        assert!(next.is_some());
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict");
        let with = |cookie: &str| {
            access.check(&stranger, &request("GET /x", &[("Cookie", cookie)])).is_ok()
        };
        assert!(with(pair) && with(&format!("a=b; {pair}")));
        assert!(!with("pcapfs-8020=x") && !with(&pair.replace("8020", "8021")));
    }

    #[test]
    fn a_certificate_lets_in() {
        let (access, _) = access();
        let mut connected = connected(None);
        connected.certificate = Some("laptop".to_owned());
        let visitor = access.check(&connected, &request("GET /", &[])).unwrap();
        assert_eq!(visitor, Visitor::Certificate("laptop".to_owned()));
    }
}
