//! `--user`: whom a command runs as.
//!
//! In: a name or number. Out: the user's ids and groups, and the step from ours to them.

use std::{ffi::CString, io, path::PathBuf};

use anyhow::{Context as _, Result};
use nix::unistd::{self, Gid, Uid};

/// A user, with all that a process is given to be the user's.
pub(super) struct User {
    name: String,
    home: PathBuf,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl User {
    /// Looks a user up, by name or number.
    ///
    /// # Errors
    /// There is no such user.
    pub(super) fn find(name: &str) -> Result<Self> {
        let named = unistd::User::from_name(name).with_context(|| format!("failed to look up user {name}"))?;
        let found = match (named, name.parse().map(Uid::from_raw)) {
            (Some(found), _) => Some(found),
            (None, Ok(uid)) => unistd::User::from_uid(uid).with_context(|| format!("failed to look up user {name}"))?,
            (None, Err(_)) => None,
        };
        let found = found.with_context(|| format!("no user {name}: `getent passwd` lists them"))?;
        let groups = CString::new(found.name.as_str())
            .map_err(anyhow::Error::from)
            .and_then(|name| unistd::getgrouplist(&name, found.gid).map_err(anyhow::Error::from));
        let groups = groups.with_context(|| format!("failed to look up the groups of {name}"))?;
        Ok(Self { name: found.name, home: found.dir, uid: found.uid, gid: found.gid, groups })
    }

    /// What tells a program whose it is. The rest of the environment stays ours.
    pub(super) fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [("HOME", self.home.clone()), ("USER", self.name.clone().into()), ("LOGNAME", self.name.clone().into())]
    }

    /// Makes this process the user's, for good. Async-signal-safe.
    ///
    /// # Errors
    /// Not permitted: it takes root, or `CAP_SETUID` and `CAP_SETGID`. A user may become itself.
    pub(super) fn become_it(&self) -> io::Result<()> {
        if unistd::geteuid() == self.uid && !self.uid.is_root() {
            return Ok(());
        }
        unistd::setgroups(&self.groups)?;
        unistd::setgid(self.gid)?;
        unistd::setuid(self.uid)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        for given in ["root", "0"] {
            let user = User::find(given).unwrap();
            assert_eq!(
                (user.uid.as_raw(), user.name.as_str(), user.home),
                (0, "root", PathBuf::from("/root")),
                "{given}"
            );
        }
    }

    #[test]
    fn a_user_that_does_not_exist_is_an_error() {
        for given in ["no-such-user", "4294967294", ""] {
            assert!(User::find(given).is_err_and(|error| error.to_string().starts_with("no user")), "{given}");
        }
    }
}
