//! How a client logs in to a server of NATS: with a token, a user and a password, or a key.
//!
//! Secrets come from the address or, better, from a file that only its user can read. Nothing here
//! shows them.

use std::fmt;
use std::path::Path;

use super::nkey::UserKey;
use super::protocol::ClientIntroduction;
use crate::remote::read_secret;

/// Lines around the parts of a file as `nsc` writes it.
const JWT: &str = "NATS USER JWT";
const SEED: &str = "USER NKEY SEED";

/// The proof of who a client is.
pub(super) enum NatsLogin {
    /// The server lets everybody in.
    Nobody,
    Token(String),
    User {
        name: String,
        password: String,
    },
    /// A key, and perhaps what an account has signed about its user.
    Key {
        key: UserKey,
        jwt: Option<String>,
    },
}

impl fmt::Debug for NatsLogin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Token(_) => "Token",
            Self::User { .. } => "User",
            Self::Key { .. } => "Key",
        })
    }
}

impl NatsLogin {
    /// Of the part of an address before the `@`: a token, or a user and a password.
    pub(super) fn of_address(credentials: Option<&(String, Option<String>)>) -> Self {
        match credentials.cloned() {
            Some((name, Some(password))) => Self::User { name, password },
            Some((token, None)) => Self::Token(token),
            None => Self::Nobody,
        }
    }

    /// Of a file: one of `nsc`, with a JWT and a seed; or one line with a seed, `USER:PASSWORD` or a
    /// token.
    ///
    /// # Errors
    /// The file cannot be read, others can read it too, or it has none of that.
    pub(super) fn of_file(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let bytes = read_secret(path).map_err(|error| format!("{shown}: {error}"))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{shown}: no text"))?;
        Self::of_text(&text).ok_or_else(|| {
            format!(
                "{shown}: no credentials of NATS (it may be a file of nsc, or have one line: a seed \
                 such as SU..., USER:PASSWORD, or a token)"
            )
        })
    }

    fn of_text(text: &str) -> Option<Self> {
        if text.contains(JWT) {
            let (jwt, seed) = (part(text, JWT)?, part(text, SEED)?);
            return Some(Self::Key { key: UserKey::of_seed(seed)?, jwt: Some(jwt.to_owned()) });
        }
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.next().filter(|_| lines.next().is_none())?;
        if let Some(key) = UserKey::of_seed(line) {
            return Some(Self::Key { key, jwt: None });
        }
        Some(match line.split_once(':') {
            Some((name, password)) => {
                Self::User { name: name.to_owned(), password: password.to_owned() }
            }
            None => Self::Token(line.to_owned()),
        })
    }

    /// Adds the proof to the introduction of the client.
    ///
    /// # Errors
    /// The server gives nothing to sign.
    pub(super) fn introduce(
        &self,
        introduction: &mut ClientIntroduction,
        nonce: Option<&str>,
    ) -> Result<(), String> {
        match self {
            Self::Nobody => {}
            Self::Token(token) => introduction.auth_token = Some(token.clone()),
            Self::User { name, password } => {
                introduction.user = Some(name.clone());
                introduction.pass = Some(password.clone());
            }
            Self::Key { key, jwt } => {
                let nonce = nonce.ok_or("the server knows no users by their keys")?;
                introduction.sig = Some(key.sign(nonce));
                introduction.jwt.clone_from(jwt);
                // A JWT names the key.
                introduction.nkey = jwt.is_none().then(|| key.public());
            }
        }
        Ok(())
    }
}

/// The line between `-----BEGIN NAME-----` and `------END NAME------`.
fn part<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("BEGIN {name}"))?;
    let (inner, _) = rest.split_once(&format!("END {name}"))?;
    let mut lines = inner.lines().map(str::trim);
    lines.find(|line| !line.is_empty() && !line.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED_TEXT: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";

    fn introduced(text: &str) -> ClientIntroduction {
        let mut introduction = ClientIntroduction::default();
        let login = NatsLogin::of_text(text).unwrap_or_else(|| panic!("{text}"));
        assert!(!format!("{login:?}").contains("SUAC") && !format!("{login:?}").contains("s3cret"));
        login.introduce(&mut introduction, Some("nonce")).unwrap();
        introduction
    }

    #[test]
    fn files_have_a_login() {
        assert_eq!(introduced("s3cret\n").auth_token.as_deref(), Some("s3cret"));
        let user = introduced("me:s3cret:x\n\n");
        assert_eq!((user.user.as_deref(), user.pass.as_deref()), (Some("me"), Some("s3cret:x")));
        let key = introduced(SEED_TEXT);
        assert!(key.nkey.is_some_and(|key| key.starts_with('U')) && key.sig.is_some());
        let file = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.x.y\n------END NATS USER JWT------\n\n\
             *** IMPORTANT ***\n\n-----BEGIN USER NKEY SEED-----\n{SEED_TEXT}\n\
             ------END USER NKEY SEED------\n"
        );
        let file = introduced(&file);
        assert_eq!((file.jwt.as_deref(), file.nkey), (Some("eyJ0.x.y"), None));
        for wrong in ["", "\n\n", "a\nb", "-----BEGIN NATS USER JWT-----\nx\n"] {
            assert!(NatsLogin::of_text(wrong).is_none(), "{wrong:?}");
        }
        let login = NatsLogin::of_text(SEED_TEXT).unwrap();
        assert!(login.introduce(&mut ClientIntroduction::default(), None).is_err());
    }
}
