//! Text that somebody pasted as a link. What is taken is written back as a link that reads as the same one;
//! neither its short forms nor any error show the secret in it.

use gkd_core::link::{KEY_CHARACTERS, Link, MAX_ADDRESSES, MAX_LINK};

/// Where the user's secret seed stands in the key's characters: behind the version and the server's key, to
/// the checksum. (Four characters are three bytes.)
const SECRET: std::ops::Range<usize> = 44..86;

/// Reads `data` as a link.
pub fn link(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<Link>() {
        Ok(link) => {
            assert!(text.trim().len() <= MAX_LINK);
            assert!((1..=MAX_ADDRESSES).contains(&link.addresses.len()));
            for address in &link.addresses {
                let ports = address.ports;
                assert!(ports.first() > 0 && ports.iter().len() == ports.count());
                assert_eq!(ports.cycle(ports.count()), ports.first());
            }
            let written = link.to_string();
            assert_eq!(written.parse().as_ref(), Ok(&link), "it reads otherwise when it was written");
            let (_, rest) = written.split_once("://").expect("a link has a scheme");
            let secret = &rest[SECRET];
            // Somebody may have written it into a host or the path as well.
            if rest.matches(secret).count() == 1 {
                for shown in [link.redacted().to_string(), format!("{link:?}")] {
                    assert!(!shown.contains(secret), "{shown} shows the secret");
                }
            }
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(!shown.is_empty() && !shown.contains(char::is_control), "{shown:?}");
            // Wherever a key may stand, no long piece of it is shown.
            let key = text.split_once("://").and_then(|(_, rest)| rest.get(..KEY_CHARACTERS));
            if let Some(secret) = key.and_then(|key| key.get(SECRET))
                && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
                && text.split_once('@').is_some_and(|(_, rest)| !rest.contains(secret))
            {
                assert!(!shown.contains(secret), "{shown} shows the secret");
            }
        }
    }
}
