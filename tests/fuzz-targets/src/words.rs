//! What a program or a user writes for a destination or a listener, and what arrives as a destination from the
//! other end. What is taken is within its bounds and reads as the same when it was written; an error shows no
//! control character and no password.

use gkd_proxy::destination::{MAX_DESTINATION, MAX_NAME};
use gkd_proxy::listener::MAX_PORTS;
use gkd_proxy::service::config::NamePattern;
use gkd_proxy::service::form::{Behind, ServiceForm};
use gkd_proxy::{Destination, Host, Listener, Target};

/// Reads `data` as the bytes of a destination, as HOST:PORT, and as a listener's form.
pub fn words(data: &[u8]) {
    match Destination::decode(data) {
        Ok(destination) => {
            match &destination {
                Destination::Tcp(target) => check(target),
                other => readable(&other.to_string()),
            }
            assert_eq!(destination.encode(), data, "it is written otherwise");
        }
        Err(error) => readable(&error.to_string()),
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<Target>() {
        Ok(target) => {
            check(&target);
            let encoded = Destination::Tcp(target.clone()).encode();
            assert!(encoded.len() <= MAX_DESTINATION);
            assert_eq!(Destination::decode(&encoded), Ok(Destination::Tcp(target)));
        }
        Err(error) => readable(&error.to_string()),
    }
    match text.parse::<ServiceForm>() {
        Ok(service) => {
            let written = service.to_string();
            readable(&written);
            // A path is shown escaped, and may hold a question mark.
            let shown_whole =
                !written.contains('\\') && matches!(service.to, Behind::Http(_) | Behind::H2c(_));
            assert!(!shown_whole || written.parse().as_ref() == Ok(&service), "{written} reads otherwise");
        }
        Err(error) => readable(&error.to_string()),
    }
    match text.parse::<NamePattern>() {
        Ok(pattern) => assert_eq!(pattern.to_string(), text),
        Err(error) => readable(&error.to_string()),
    }
    match text.parse::<Listener>() {
        Ok(listener) => {
            assert!((1..=MAX_PORTS).contains(&listener.ports.len()));
            let written = listener.to_string();
            readable(&written);
            let again = written.parse::<Listener>();
            let shown_whole = !written.contains("***@") && !written.contains('\\');
            let expected = Listener { bind: Some(listener.bind_or_loopback()), ..listener };
            assert!(!shown_whole || again.as_ref() == Ok(&expected), "{written} reads as {again:?}");
        }
        Err(error) => readable(&error.to_string()),
    }
}

fn check(target: &Target) {
    assert_ne!(target.port(), 0);
    if let Host::Name(name) = target.host() {
        assert!((1..=MAX_NAME).contains(&name.as_str().len()));
    }
    readable(&target.to_string());
}

fn readable(shown: &str) {
    assert!(!shown.is_empty() && !shown.contains(char::is_control), "{shown:?}");
}
