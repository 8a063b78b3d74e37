//! Checks what a caller may do: the permission bits of the tree, as path_resolution(7) has them.
//!
//! Pure functions: a caller and permissions in, yes or no out.

use capture::ring::Permissions;

use super::names;

/// A user who asks for an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
}

/// One of the three bits that each of owner, group and others have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PermissionBit {
    Read,
    Write,
    Search,
}

impl PermissionBit {
    const fn mask(self) -> u32 {
        match self {
            Self::Read => 0o4,
            Self::Write => 0o2,
            Self::Search => 0o1,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Read => 'r',
            Self::Write => 'w',
            Self::Search => 'x',
        }
    }
}

/// A missing bit, as an error for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("permission denied: {} {letter} on {what} is missing ({owner}:{group} {mode:04o}{advice})",
    .class.name())]
pub(crate) struct PermissionDenied {
    /// The bit: r, w or x.
    letter: char,
    /// Alias of the capture, or the root of the tree.
    what: String,
    class: PermissionClass,
    owner: String,
    group: String,
    mode: u32,
    advice: String,
}

/// The class whose bits apply to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PermissionClass {
    Owner,
    Group,
    Others,
}

impl PermissionClass {
    const fn name(self) -> &'static str {
        match self {
            Self::Owner => "the owner's",
            Self::Group => "the group's",
            Self::Others => "the others'",
        }
    }

    const fn shift(self) -> u32 {
        match self {
            Self::Owner => 6,
            Self::Group => 3,
            Self::Others => 0,
        }
    }
}

impl Caller {
    /// Checks that these bits let the caller do that. `what` names the file or capture they belong
    /// to.
    ///
    /// # Errors
    /// The first of `bits` that is missing.
    pub(crate) fn check(
        &self,
        permissions: Permissions,
        bits: &[PermissionBit],
        what: &str,
    ) -> Result<(), PermissionDenied> {
        self.missing(permissions, bits).map_or(Ok(()), |bit| {
            Err(PermissionDenied {
                letter: bit.letter(),
                what: what.to_owned(),
                class: self.class(permissions),
                owner: names::user(permissions.uid),
                group: names::group(permissions.gid),
                mode: permissions.mode,
                advice: self.advice(permissions, bits),
            })
        })
    }

    /// A hint for people: the changes that would let the caller do that.
    fn advice(&self, permissions: Permissions, bits: &[PermissionBit]) -> String {
        let group = permissions.mode >> PermissionClass::Group.shift();
        let would_do = bits.iter().all(|bit| group & bit.mask() != 0);
        // Root's group can do much more than read captures, so it is not suggested.
        if self.class(permissions) != PermissionClass::Others || !would_do || permissions.gid == 0 {
            return "; its owner can chmod or chgrp it".to_owned();
        }
        let (group, user) = (names::group(permissions.gid), names::user(self.uid));
        format!(
            "; root adds {user} to the group with: usermod -aG {group} {user}, which holds from the \
             next login on; or its owner can chmod or chgrp it"
        )
    }

    /// Returns `true` if these permissions let the caller do that.
    pub(crate) fn may(&self, permissions: Permissions, bits: &[PermissionBit]) -> bool {
        self.missing(permissions, bits).is_none()
    }

    /// The first bit that the caller lacks.
    fn missing(&self, permissions: Permissions, bits: &[PermissionBit]) -> Option<PermissionBit> {
        // CAP_DAC_OVERRIDE is not visible from here. A user other than root who has it can reach
        // the tree's files anyway.
        if self.uid == 0 {
            return None;
        }
        let granted = permissions.mode >> self.class(permissions).shift();
        bits.iter().copied().find(|bit| granted & bit.mask() == 0)
    }

    /// The first class that the caller is in decides alone.
    fn class(&self, permissions: Permissions) -> PermissionClass {
        if self.uid == permissions.uid {
            PermissionClass::Owner
        } else if self.gid == permissions.gid || self.groups.contains(&permissions.gid) {
            PermissionClass::Group
        } else {
            PermissionClass::Others
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u32 = 54_321;
    const GROUP: u32 = 65_432;

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        Caller { uid, gid, groups: groups.to_vec() }
    }

    fn may(caller: &Caller, mode: u32, bit: PermissionBit) -> bool {
        let permissions = Permissions { uid: USER, gid: GROUP, mode };
        let may = caller.may(permissions, &[bit]);
        assert_eq!(caller.check(permissions, &[bit], "web").is_ok(), may);
        may
    }

    #[test]
    fn each_class_has_its_bits_and_no_others() {
        let classes = [
            (caller(USER, 1, &[]), 6),
            (caller(USER, GROUP, &[GROUP]), 6),
            (caller(1, GROUP, &[]), 3),
            (caller(1, 1, &[2, GROUP]), 3),
            (caller(1, 1, &[2]), 0),
        ];
        for (caller, shift) in classes {
            for (bit, mask) in
                [(PermissionBit::Read, 4), (PermissionBit::Write, 2), (PermissionBit::Search, 1)]
            {
                assert!(may(&caller, mask << shift, bit), "{caller:?} {bit:?}");
                assert!(!may(&caller, 0o777 & !(mask << shift), bit), "{caller:?} {bit:?}");
            }
        }
        assert!(may(&caller(0, 0, &[]), 0, PermissionBit::Write), "root may all");
    }

    #[test]
    fn a_refusal_names_the_bit() {
        let permissions = Permissions { uid: 0, gid: GROUP, mode: 0o740 };
        let denied = |caller: Caller| {
            let bits = [PermissionBit::Read, PermissionBit::Search];
            caller.check(permissions, &bits, "web").unwrap_err().to_string()
        };
        let text = denied(caller(1, 1, &[]));
        assert!(text.starts_with("permission denied: the others' r on web is missing"), "{text}");
        assert!(text.contains("root:65432 0740"), "{text}");
        assert!(text.contains("chmod or chgrp") && !text.contains("usermod"), "{text}");
        let text = denied(caller(1, GROUP, &[]));
        assert!(text.starts_with("permission denied: the group's x on web is missing"), "{text}");
        assert!(!text.contains("usermod"), "{text}");
    }

    #[test]
    fn a_refusal_names_the_group_that_would_do() {
        let said = |gid, bits: &[PermissionBit]| {
            let permissions = Permissions { uid: 0, gid, mode: 0o750 };
            caller(USER, 1, &[]).check(permissions, bits, "web").unwrap_err().to_string()
        };
        let text = said(GROUP, &[PermissionBit::Read, PermissionBit::Search]);
        assert!(text.contains("usermod -aG 65432 54321"), "{text}");
        for text in [said(GROUP, &[PermissionBit::Write]), said(0, &[PermissionBit::Read])] {
            assert!(!text.contains("usermod") && text.contains("chgrp"), "{text}");
        }
    }
}
