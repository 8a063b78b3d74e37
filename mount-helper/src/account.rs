//! The user the daemon runs as.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgrouplist};

/// A user that is not root, with every group it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
}

/// Why the account cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error(
        "{0}: no such user (make it with: useradd --system --user-group {0}; or name another \
         with -o user=NAME)"
    )]
    Missing(String),
    #[error("-o user={0}: the daemon must not run as root (as root, use: pcapfs mount)")]
    Root(String),
    #[error("{0}: cannot look this user up: {1}")]
    Lookup(String, Errno),
}

impl Account {
    /// Looks a user up by name.
    ///
    /// # Errors
    /// [`AccountError`].
    pub(crate) fn of(name: &str) -> Result<Self, AccountError> {
        let failure = |errno| AccountError::Lookup(name.to_owned(), errno);
        let user = User::from_name(name)
            .map_err(failure)?
            .ok_or_else(|| AccountError::Missing(name.to_owned()))?;
        if user.uid.is_root() {
            return Err(AccountError::Root(name.to_owned()));
        }
        // The name was found, so it contains no zero byte.
        let name = CString::new(name).map_err(|_| failure(Errno::EINVAL))?;
        let groups = getgrouplist(&name, user.gid).map_err(failure)?;
        Ok(Self { uid: user.uid, gid: user.gid, groups })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_unknown_users_are_refused() {
        assert!(matches!(Account::of("root"), Err(AccountError::Root(_))));
        let error = Account::of("no-such-user-here").unwrap_err().to_string();
        assert!(error.starts_with("no-such-user-here: no such user (make it with: "), "{error}");
        let nobody = Account::of("nobody").unwrap();
        assert!(nobody.groups.contains(&nobody.gid));
    }
}
