//! Secrets that let in a client whom the kernel does not know: the token of the printed address,
//! or of a file, and the cookie that a browser gets for it.
//!
//! Only hashes of secrets are kept and compared, so the time of a comparison says nothing about
//! them.

use std::collections::VecDeque;
use std::path::Path;

use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::failure::Failure;
use crate::remote::read_secret;

/// Bytes of a random secret.
const SECRET: usize = 24;

/// The minimum number of characters of a token in a file: a shorter one can be guessed.
const LEAST_TOKEN: usize = 16;

/// Maximum number of browsers that are logged in; the one that logged in first has to do it again.
const SESSIONS: usize = 64;

/// SHA-256 of a secret.
type Hashed = [u8; 32];

/// The secrets of a server.
#[derive(Debug)]
pub(super) struct Tokens {
    login: Mutex<LoginToken>,
    /// Of the cookies, in the order in which they were given.
    sessions: Mutex<VecDeque<Hashed>>,
    random: SystemRandom,
}

/// The token with which a client logs in.
#[derive(Debug)]
enum LoginToken {
    /// For one login: the token is used up by it.
    Once(Hashed),
    /// For any number of logins, and for programs.
    Lasting(Hashed),
}

/// A login: the value of the cookie, and the token for the next one if this one is used up.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) cookie: String,
    pub(super) next: Option<String>,
}

impl Tokens {
    /// Secrets with a token for one login, which is returned too.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn once() -> Result<(Self, String), Failure> {
        let random = SystemRandom::new();
        let token = secret(&random).ok_or_else(no_random)?;
        Ok((Self::with(LoginToken::Once(hashed(&token)), random), token))
    }

    /// Secrets with the token that a file holds.
    ///
    /// # Errors
    /// The file cannot be read, other users may read it, or it has no token.
    pub(super) fn of_file(path: &Path) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::Answer(format!("--token-file {}: {why}", path.display()));
        let bytes = read_secret(path).map_err(|error| wrong(&error.to_string()))?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let token = text.trim();
        let is_word = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.len() < LEAST_TOKEN || !is_word {
            return Err(wrong(&format!(
                "no token: one word of {LEAST_TOKEN} or more ASCII characters (make one with: \
                 openssl rand -hex 24)"
            )));
        }
        Ok(Self::with(LoginToken::Lasting(hashed(token)), SystemRandom::new()))
    }

    const fn with(login: LoginToken, random: SystemRandom) -> Self {
        Self { login: Mutex::new(login), sessions: Mutex::new(VecDeque::new()), random }
    }

    /// Logs a browser in; `None` if the token is not the one.
    pub(super) fn log_in(&self, token: &str) -> Option<Login> {
        let mut login = self.login.lock();
        let next = match &*login {
            LoginToken::Once(wanted) if *wanted == hashed(token) => {
                let next = secret(&self.random)?;
                *login = LoginToken::Once(hashed(&next));
                Some(next)
            }
            LoginToken::Lasting(wanted) if *wanted == hashed(token) => None,
            _ => return None,
        };
        let cookie = secret(&self.random)?;
        let mut sessions = self.sessions.lock();
        sessions.push_back(hashed(&cookie));
        if sessions.len() > SESSIONS {
            sessions.pop_front();
        }
        Some(Login { cookie, next })
    }

    /// True if this is the value of a cookie that a login gave.
    pub(super) fn knows_cookie(&self, cookie: &str) -> bool {
        self.sessions.lock().contains(&hashed(cookie))
    }

    /// True if a program may use this token in each of its requests.
    pub(super) fn knows_lasting(&self, token: &str) -> bool {
        matches!(&*self.login.lock(), LoginToken::Lasting(wanted) if *wanted == hashed(token))
    }
}

fn hashed(secret: &str) -> Hashed {
    let mut hashed = Hashed::default();
    let digest = digest(&SHA256, secret.as_bytes());
    hashed.iter_mut().zip(digest.as_ref()).for_each(|(byte, digit)| *byte = *digit);
    hashed
}

/// A new secret, in hexadecimal digits.
fn secret(random: &SystemRandom) -> Option<String> {
    let mut bytes = [0; SECRET];
    random.fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn no_random() -> Failure {
    Failure::Answer("the system has no random numbers for a token (use --token-file)".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_printed_token_is_for_one_login() {
        let (tokens, token) = Tokens::once().unwrap();
        assert!(tokens.log_in("").is_none());
        assert!(!tokens.knows_lasting(&token));
        let login = tokens.log_in(&token).unwrap();
        assert!(tokens.log_in(&token).is_none(), "it is used up");
        assert!(tokens.knows_cookie(&login.cookie) && !tokens.knows_cookie(&token));
        let next = login.next.unwrap();
        assert!(tokens.log_in(&next).is_some());
        assert_eq!(tokens.sessions.lock().len(), 2);
    }

    #[test]
    fn the_sessions_are_bounded() {
        let (tokens, mut token) = Tokens::once().unwrap();
        let first = tokens.log_in(&token).unwrap();
        token = first.next.unwrap();
        for _ in 0..SESSIONS {
            assert!(tokens.knows_cookie(&first.cookie));
            token = tokens.log_in(&token).unwrap().next.unwrap();
        }
        assert!(!tokens.knows_cookie(&first.cookie));
    }

    #[test]
    fn a_token_of_a_file_lasts_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Tokens::of_file(&path)
        };
        let tokens = write("0123456789abcdef\n", 0o600).unwrap();
        assert!(tokens.log_in("0123456789abcdef").unwrap().next.is_none());
        assert!(tokens.log_in("0123456789abcdef").is_some());
        assert!(tokens.knows_lasting("0123456789abcdef") && !tokens.knows_lasting("0123"));
        for (text, mode, why) in [
            ("0123456789abcdef", 0o644, "other users may read"),
            ("short", 0o600, "no token"),
            ("two words of some length", 0o600, "no token"),
        ] {
            let error = write(text, mode).unwrap_err().to_string();
            assert!(error.contains(why) && error.starts_with("--token-file "), "{error}");
        }
    }
}
