//! What a configuration that was read anew changes of the one in force, in words for one line of the log ([`changes`]).

use std::collections::HashMap;

use crate::config::User;
use crate::users::UserName;

/// The most users that are named.
const MOST: usize = 8;

/// What differs between users before and after, behind the settings of all that do; "nothing changed" where nothing does.
pub(crate) fn changes(before: &[User], after: &[User], settings: &[&str]) -> String {
    let by_name = |users: &'_ [User]| -> HashMap<UserName, User> {
        users.iter().map(|user| (user.name.clone(), user.clone())).collect()
    };
    let (old, new) = (by_name(before), by_name(after));
    let removed = before
        .iter()
        .filter(|user| !new.contains_key(&user.name))
        .map(|user| format!("{} removed", user.name));
    let others = after.iter().filter_map(|user| match old.get(&user.name) {
        None => Some(format!("{} added", user.name)),
        Some(before) => match differs(before, user) {
            what if what.is_empty() => None,
            what => Some(format!("{} has another {}", user.name, what.join(", "))),
        },
    });
    let mut named: Vec<_> = removed.chain(others).collect();
    let more = named.len().saturating_sub(MOST);
    named.truncate(MOST);
    if more > 0 {
        named.push(format!("{more} more"));
    }
    named.splice(0..0, settings.iter().map(|setting| format!("{setting} changed")));
    if named.is_empty() { "nothing changed".to_owned() } else { named.join(", ") }
}

fn differs(before: &User, after: &User) -> Vec<&'static str> {
    let parts = [
        ("key", before.key != after.key),
        ("rules", before.rules != after.rules),
        ("reverse", before.binds != after.binds),
        ("unix", before.paths != after.paths),
        ("services", before.services != after.services),
        ("limits", before.limits != after.limits),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn users(text: &str) -> Vec<User> {
        let users = text.split(';').filter(|one| !one.is_empty()).map(|one| {
            let (name, rest) = one.split_once(' ').unwrap_or((one, ""));
            let key = gkd_core::identity::public_text(&gkd_core::proto::id::PeerId([name.len() as u8; 32]));
            format!("[[user]]\nname = \"{name}\"\nkey = \"{key}\"\n{rest}\n")
        });
        let http = "[http]\nlisten = [\"http://127.0.0.1:8080\"]\ndomain = \"apps.example.org\"\n";
        Config::parse(&format!("# users\n{}{http}", users.collect::<String>())).unwrap().users
    }

    #[test]
    fn what_changed_is_told() {
        for (before, after, settings, told) in [
            ("a;bb", "a;bb", &[][..], "nothing changed"),
            ("a;bb", "a;bb", &["allow"], "allow changed"),
            ("a;bb", "a;bb", &["allow", "services"], "allow changed, services changed"),
            ("a", "a;bb", &[], "bb added"),
            ("a;bb", "bb", &["allow"], "allow changed, a removed"),
            ("a", "a rules = [{ deny = \"*\" }]", &[], "a has another rules"),
            ("a", "a reverse = [\"80\"]\nlimits = { sessions = 1 }", &[], "a has another reverse, limits"),
            ("a unix = [\"/run/x\"]", "a unix = [\"/run/x/*\"]", &[], "a has another unix"),
            ("a services = [\"x\"]", "a services = [\"x-*\"]", &[], "a has another services"),
            (
                "",
                "1;22;333;4444;55555;666666;7777777;88888888;999999999;1010101010",
                &[],
                "1 added, 22 added, 333 added, 4444 added, 55555 added, 666666 added, 7777777 added, 88888888 added, 2 more",
            ),
        ] {
            assert_eq!(changes(&users(before), &users(after), settings), told);
        }
    }
}
