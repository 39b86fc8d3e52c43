//! A target of a service as it is written: words alone, or a table with a weight ([`WrittenTarget`]).

use std::fmt;
use std::ops::Range;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

/// `"http://10.0.0.1:8080"`, or `{ to = "http://10.0.0.1:8080", weight = 2 }`.
pub(super) enum WrittenTarget {
    Words(String),
    Table(WrittenTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTable {
    to: Spanned<String>,
    weight: Option<Spanned<i64>>,
}

impl WrittenTarget {
    /// Its words and where they stand, and the weight; `whole` is where all of it stands.
    pub(super) fn parts(&self, whole: Range<usize>) -> (&str, Range<usize>, Option<&Spanned<i64>>) {
        match self {
            Self::Words(words) => (words, whole, None),
            Self::Table(WrittenTable { to, weight }) => (to.get_ref(), to.span(), weight.as_ref()),
        }
    }
}

/// Not derived: what serde makes of an untagged enum loses where its parts stand.
impl<'de> Deserialize<'de> for WrittenTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = WrittenTarget;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a target such as \"http://10.0.0.1:8080\", or { to = \"http://10.0.0.1:8080\", weight = 2 }")
            }

            fn visit_str<E: Error>(self, words: &str) -> Result<WrittenTarget, E> {
                Ok(WrittenTarget::Words(words.to_owned()))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<WrittenTarget, M::Error> {
                WrittenTable::deserialize(MapAccessDeserializer::new(map)).map(WrittenTarget::Table)
            }
        }

        deserializer.deserialize_any(Either)
    }
}
