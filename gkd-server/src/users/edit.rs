//! Editing the users of `server.toml` without touching anything that a person wrote around them ([`Edit`]).

use std::fmt;

use gkd_proxy::rules::Bind;
use toml_edit::{
    Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, TomlError, Value, value,
};

use super::UserName;

/// The file as a tree with its comments. Users may stand as `[[user]]` or as `user = [{ ... }]`.
pub(super) struct Edit(DocumentMut);

/// Why the users cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EditError {
    Exists(UserName),
    Unknown(UserName),
    /// `user` is something else than a list of tables.
    Shape,
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(name) => write!(
                f,
                "there is a user {name} already: choose another name; for a new link of this one, which ends \
                 the old, gkd-server user renew '{name}'"
            ),
            Self::Unknown(name) => {
                write!(f, "there is no user {name}: gkd-server user list shows which there are")
            }
            Self::Shape => f.write_str("user is not a list of tables: write [[user]] with name and key"),
        }
    }
}

impl Edit {
    pub(super) fn parse(text: &str) -> Result<Self, TomlError> {
        text.parse().map(Self)
    }

    pub(super) fn text(&self) -> String {
        self.0.to_string()
    }

    /// Adds a user behind the others, with what its reverse listeners may bind unless that is the default.
    pub(super) fn add(&mut self, name: &UserName, key: &str, reverse: &[Bind]) -> Result<(), EditError> {
        if self.find(name).is_some() {
            return Err(EditError::Exists(name.clone()));
        }
        let users = self.0.entry("user").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        match users {
            Item::ArrayOfTables(tables) => {
                let mut user = Table::new();
                user.insert("name", value(name.as_str()));
                user.insert("key", value(key));
                if !reverse.is_empty() {
                    user.insert("reverse", value(listed(reverse)));
                }
                user.decor_mut().set_prefix("\n");
                tables.push(user);
            }
            Item::Value(Value::Array(array)) => {
                let mut user = InlineTable::new();
                user.insert("name", name.as_str().into());
                user.insert("key", key.into());
                if !reverse.is_empty() {
                    user.insert("reverse", listed(reverse).into());
                }
                push_like_the_last(array, user);
            }
            _ => return Err(EditError::Shape),
        }
        Ok(())
    }

    /// Gives a user another key.
    pub(super) fn renew(&mut self, name: &UserName, key: &str) -> Result<(), EditError> {
        let unknown = || EditError::Unknown(name.clone());
        let index = self.find(name).ok_or_else(unknown)?;
        let user: &mut dyn TableLike = match self.0.get_mut("user") {
            Some(Item::ArrayOfTables(tables)) => tables.get_mut(index).ok_or_else(unknown)?,
            Some(Item::Value(Value::Array(array))) => {
                array.get_mut(index).and_then(Value::as_inline_table_mut).ok_or_else(unknown)?
            }
            _ => return Err(EditError::Shape),
        };
        let old = user.get_mut("key").and_then(Item::as_value_mut).ok_or(EditError::Shape)?;
        // A comment behind it stays.
        let decor = old.decor().clone();
        *old = key.into();
        *old.decor_mut() = decor;
        Ok(())
    }

    /// Removes a user, with the comment that stands right above it. Comments that a blank line parts from it
    /// stay.
    pub(super) fn remove(&mut self, name: &UserName) -> Result<(), EditError> {
        let index = self.find(name).ok_or_else(|| EditError::Unknown(name.clone()))?;
        let kept = match self.0.get_mut("user") {
            Some(Item::ArrayOfTables(tables)) => {
                let kept = tables.get(index).map(|user| comments_apart(prefix(user))).unwrap_or_default();
                tables.remove(index);
                match tables.get_mut(index) {
                    Some(next) => {
                        let prefix = format!("{kept}{}", prefix(next));
                        next.decor_mut().set_prefix(prefix);
                        String::new()
                    }
                    None => kept,
                }
            }
            Some(Item::Value(Value::Array(array))) => {
                array.remove(index);
                String::new()
            }
            _ => return Err(EditError::Shape),
        };
        if !kept.is_empty() {
            let trailing = format!("{kept}{}", self.0.trailing().as_str().unwrap_or_default());
            self.0.set_trailing(trailing);
        }
        Ok(())
    }

    fn find(&self, name: &UserName) -> Option<usize> {
        let is = |user: &dyn TableLike| user.get("name").and_then(Item::as_str) == Some(name.as_str());
        match self.0.get("user")? {
            Item::ArrayOfTables(tables) => tables.iter().position(|user| is(user)),
            Item::Value(Value::Array(array)) => {
                array.iter().position(|user| user.as_inline_table().is_some_and(|user| is(user)))
            }
            _ => None,
        }
    }
}

fn listed(binds: &[Bind]) -> Array {
    binds.iter().map(ToString::to_string).collect()
}

fn prefix(table: &Table) -> &str {
    table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default()
}

/// What stands above the last blank line.
fn comments_apart(prefix: &str) -> String {
    let apart = prefix.rfind("\n\n").map_or("", |blank| &prefix[..=blank]);
    if apart.contains('#') { apart.to_owned() } else { String::new() }
}

/// As the last one is set off: on a line of its own, or behind a blank.
fn push_like_the_last(array: &mut Array, user: InlineTable) {
    let prefix = array.iter().last().and_then(|last| last.decor().prefix()?.as_str()).map(str::to_owned);
    match prefix {
        Some(prefix) if prefix.contains('\n') => {
            let mut user = Value::from(user);
            // No comment of the last user's.
            let indent = prefix.rsplit('\n').next().unwrap_or_default();
            user.decor_mut().set_prefix(format!("\n{indent}"));
            array.push_formatted(user);
        }
        _ => array.push(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# my server
listen = [\"127.0.0.1:1\"] # here

[limits] # few
sessions = 3

# Users follow.

# Alice has two laptops.
[[user]]
name = \"alice\" # ours
key = \"A\" # of May

# Bob is new.
[[user]]
name = \"bob\"
key = \"B\"

# The end.
";

    fn name(name: &str) -> UserName {
        name.parse().unwrap()
    }

    fn edited(text: &str, edit: impl FnOnce(&mut Edit) -> Result<(), EditError>) -> String {
        let mut document = Edit::parse(text).unwrap();
        edit(&mut document).unwrap();
        document.text()
    }

    #[test]
    fn a_user_is_added_behind_the_others() {
        let text = edited(FILE, |edit| edit.add(&name("eve"), "E", &[]));
        let bob = FILE.find("\n# The end.").unwrap();
        assert_eq!(
            text,
            format!("{}\n[[user]]\nname = \"eve\"\nkey = \"E\"\n{}", &FILE[..bob], &FILE[bob..])
        );
    }

    #[test]
    fn a_first_user_is_added_to_a_file_without() {
        let text = edited("# only this\nplain = true\n", |edit| edit.add(&name("eve"), "E", &[]));
        assert_eq!(text, "# only this\nplain = true\n\n[[user]]\nname = \"eve\"\nkey = \"E\"\n");
    }

    #[test]
    fn what_a_user_may_bind_is_written_with_it() {
        let binds = ["80,443", "0.0.0.0:8080"].map(|words| words.parse().unwrap());
        let reverse = "reverse = [\"127.0.0.1:80,443\", \"0.0.0.0:8080\"]";
        let text = edited(FILE, |edit| edit.add(&name("eve"), "E", &binds));
        assert!(text.contains(&format!("key = \"E\"\n{reverse}\n")), "{text}");
        let text = edited("user = []\n", |edit| edit.add(&name("eve"), "E", &binds));
        assert!(text.contains(&format!("{{ name = \"eve\", key = \"E\", {reverse} }}")), "{text}");
    }

    #[test]
    fn users_with_rules_and_limits_are_edited_as_a_whole() {
        let file = "[[user]]\nname = \"a\"\nkey = \"A\"\nrules = [ { deny = \"*\" } ] # none\n\n[user.limits]\nup = \"1M\" # slow\n";
        let text = edited(file, |edit| edit.add(&name("b"), "B", &[]));
        assert_eq!(text, format!("{file}\n[[user]]\nname = \"b\"\nkey = \"B\"\n"));
        let renewed = edited(&text, |edit| edit.renew(&name("a"), "N"));
        assert_eq!(renewed, text.replace("\"A\"", "\"N\""));
        let removed = edited(&text, |edit| edit.remove(&name("a")));
        assert!(!removed.contains("limits") && removed.contains("key = \"B\""), "{removed}");
    }

    #[test]
    fn a_renewed_key_leaves_everything_else() {
        let text = edited(FILE, |edit| edit.renew(&name("alice"), "N"));
        assert_eq!(text, FILE.replace("key = \"A\" # of May", "key = \"N\" # of May"));
    }

    #[test]
    fn a_removed_user_takes_its_own_comment_only() {
        let text = edited(FILE, |edit| edit.remove(&name("alice")));
        assert!(
            text.contains("# my server") && text.contains("# Users follow.") && text.contains("# The end."),
            "{text}"
        );
        assert!(text.contains("# Bob is new.\n[[user]]\nname = \"bob\""), "{text}");
        assert!(!text.contains("alice") && !text.contains("Alice"), "{text}");

        let text = edited(&text, |edit| edit.remove(&name("bob")));
        assert!(
            text.contains("# Users follow.") && text.contains("# The end.") && !text.contains("Bob"),
            "{text}"
        );
        assert!(Edit::parse(&text).is_ok());
    }

    #[test]
    fn inline_tables_are_edited_as_well() {
        let file = "user = [\n  { name = \"a\", key = \"A\" }, # one\n]\n";
        let text = edited(file, |edit| edit.add(&name("b"), "B", &[]));
        assert!(text.contains("# one") && text.contains("{ name = \"b\", key = \"B\" }"), "{text}");
        let text = edited(&text, |edit| edit.renew(&name("b"), "C"));
        let text = edited(&text, |edit| edit.remove(&name("a")));
        assert!(text.contains("key = \"C\"") && !text.contains("\"a\""), "{text}");
    }

    #[test]
    fn a_name_twice_and_an_unknown_one_are_refused() {
        let mut edit = Edit::parse(FILE).unwrap();
        assert_eq!(edit.add(&name("bob"), "X", &[]), Err(EditError::Exists(name("bob"))));
        assert_eq!(edit.renew(&name("eve"), "X"), Err(EditError::Unknown(name("eve"))));
        assert_eq!(edit.remove(&name("eve")), Err(EditError::Unknown(name("eve"))));
        assert_eq!(edit.text(), FILE);
        assert_eq!(Edit::parse("user = 1\n").unwrap().add(&name("a"), "A", &[]), Err(EditError::Shape));
    }
}
