//! What `gkd-load` shares with other measuring programs: [`content`], of which every byte can be checked.

pub mod content;
