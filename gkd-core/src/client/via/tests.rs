use hyper::http::response;

use super::*;

fn via(text: &str) -> Via {
    text.parse().unwrap()
}

/// What the proxy is told of user and password.
fn told(text: &str) -> String {
    let proof = via(text).proof.unwrap();
    let encoded = proof.to_str().unwrap().strip_prefix("Basic ").unwrap();
    String::from_utf8(BASE64.decode(encoded.as_bytes()).unwrap()).unwrap()
}

#[test]
fn a_proxy_is_read_with_and_without_its_scheme() {
    for (text, address) in [
        ("http://proxy.example:3128", "proxy.example:3128"),
        ("HTTP://192.0.2.1:80/", "192.0.2.1:80"),
        ("proxy:8080", "proxy:8080"),
        ("http://[2001:db8::1]:3128", "[2001:db8::1]:3128"),
        ("http://me:secret@proxy:3128/", "proxy:3128"),
    ] {
        assert_eq!(via(text).address().to_string(), address, "{text}");
    }
}

#[test]
fn user_and_password_are_unescaped_and_never_shown() {
    for (text, pair) in [
        ("http://me:secret@p:1", "me:secret"),
        ("me@p:1", "me:"),
        ("http://:token@p:1", ":token"),
        ("http://domain%5Cme:p%40s%3As%25%20%c3%a9@p:1", "domain\\me:p@s:s% é"),
        // The last @ parts them, and only the first colon.
        ("http://me:a@b:c@p:1", "me:a@b:c"),
    ] {
        assert_eq!(told(text), pair, "{text}");
        let (via, encoded) = (via(text), BASE64.encode(pair.as_bytes()));
        let shown = format!("{via} {via:?} {:?}", via.request("a:1").unwrap());
        for secret in [pair, &encoded] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn wrong_urls_are_told_with_the_mend_and_without_the_password() {
    for (text, part) in [
        ("", "there is no proxy"),
        ("http://", "there is no proxy"),
        ("http://me:secret@", "there is no proxy"),
        (
            "https://me:secret@p:1",
            "a proxy of https:// cannot be used: give one that takes CONNECT at http://HOST:PORT",
        ),
        ("socks5h://p:1", "a proxy of socks5h:// cannot be used"),
        ("me:secret://x@p:1", "this is not the URL of a proxy"),
        ("://p:1", "this is not the URL of a proxy"),
        ("http://me:secret@proxy", "the proxy \"proxy\" has no port"),
        ("http://p:1-2", "several ports"),
        ("http://p:0", "is not a port"),
        ("http://p:1/secret", "something stands behind"),
        ("http://p:1?secret", "something stands behind"),
        ("http://pröxy:1", "is not a host"),
        ("http://:3128", "it has no host"),
        ("http://2001:db8::1:3128", "in brackets"),
        ("http://me:se cret@p:1", "a blank"),
        ("http://me:se\u{1b}cret@p:1", "a blank or a control character"),
        ("http://@p:1", "there is no user"),
        ("http://me:secret%@p:1", "broken % escape"),
        ("http://me:secret%zz@p:1", "broken % escape"),
        ("http://me:secret%ff@p:1", "broken % escape"),
        ("http://a%3Ab:secret@p:1", "a colon"),
        ("http://me:secret%0d%0a@p:1", "a control character"),
    ] {
        let error = text.parse::<Via>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
        assert!(!error.contains("secret") && !error.contains('\n'), "{text}: {error}");
    }
    assert_eq!(format!("http://{}:1", "p".repeat(MAX_URL)).parse::<Via>(), Err(ViaError::TooLong));
}

fn answer(status: u16, headers: &[&str]) -> Response<()> {
    let answer = headers.iter().fold(response::Builder::new().status(status), |answer, value| {
        answer.header(header::PROXY_AUTHENTICATE, *value)
    });
    answer.body(()).unwrap()
}

#[test]
fn a_proof_that_is_asked_for_is_told_by_its_kind() {
    let (bare, with) = (via("p:1"), via("me:secret@p:1"));
    for headers in
        [&[][..], &["Basic realm=\"a, b\""], &["Negotiate, NTLM, basic realm=\"x\""], &["NTLM", "Basic"]]
    {
        assert!(matches!(bare.refused("a:1", &answer(407, headers)), ProxyError::PasswordWanted { .. }));
        assert!(matches!(with.refused("a:1", &answer(407, headers)), ProxyError::PasswordRefused { .. }));
    }
    for headers in [&["Negotiate", "NTLM"][..], &["Negotiate,NTLM"]] {
        let error = with.refused("a:1", &answer(407, headers));
        assert!(error.is_final());
        assert!(
            error.to_string().contains("a proof by Negotiate, NTLM, and only Basic can be given"),
            "{error}"
        );
    }
}

#[test]
fn a_refusal_is_told_with_its_status_and_is_not_final() {
    for (status, part) in [
        (403, "it answers 403 Forbidden: it may permit"),
        (502, "it answers 502 Bad Gateway: it does not reach it"),
        (503, "503 Service Unavailable: it does not"),
        (504, "504 Gateway Timeout: it does not"),
        (400, "400 Bad Request: check that it is"),
        (302, "302 Found: check that it is"),
    ] {
        let error = via("p:1").refused("a:1", &answer(status, &[]));
        assert!(!error.is_final());
        assert!(error.to_string().contains(part), "{error}");
    }
}

proptest::proptest! {
    /// Whatever user and password are, escaped they arrive as they are.
    #[test]
    fn escaped_words_arrive_whole(user in "[^:\\pC]{1,20}", password in "[^\\pC]{0,20}") {
        let escape = |words: &str| words.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let text = format!("http://{}:{}@p:1", escape(&user), escape(&password));
        proptest::prop_assert_eq!(told(&text), format!("{user}:{password}"));
    }

    /// No text does more harm than not to be a proxy, and what stands in front of the last @ is not shown.
    #[test]
    fn any_text_is_a_proxy_or_an_error_of_one_line(text in "(http://)?([%a-z:@/\\PC]{0,12}|.{0,12})zzsecret@.{0,12}") {
        if let Err(error) = text.parse::<Via>() {
            let error = error.to_string();
            proptest::prop_assert!(!error.contains("zzsecret") && !error.contains('\n'), "{}", error);
        }
    }
}
