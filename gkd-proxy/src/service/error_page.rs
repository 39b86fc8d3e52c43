//! What a visitor sees where there is no answer of a service ([`page`]): which side failed, the status, and the id by which
//! the log has the request. As HTML for browsers, as JSON for programs that ask for it, else as text. It says nothing of
//! what runs here.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::ServiceBody;

/// The header that names a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Which side failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The request: whoever sent it is to send another.
    Request,
    /// The server that was asked.
    Server,
    /// The service behind the server.
    Service,
}

impl Side {
    /// As it stands in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Server => "server",
            Self::Service => "service",
        }
    }

    /// As it stands on a page.
    fn sentence(self) -> &'static str {
        match self {
            Self::Request => "The fault is in the request.",
            Self::Server => "The fault is in this server.",
            Self::Service => "The fault is in the service behind this server.",
        }
    }
}

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Html,
    Json,
    Text,
}

/// An answer with this status. `words` is a sentence that says what happened and names nothing of the inside; `asked` are the
/// headers of the request, and `id` is empty where it has no name.
pub fn page(
    status: StatusCode,
    side: Side,
    words: &str,
    id: &str,
    asked: &HeaderMap,
) -> Response<ServiceBody> {
    let form = Form::wanted(asked);
    let (content_type, text) = match form {
        Form::Html => ("text/html; charset=utf-8", html(status, side, words, id)),
        Form::Json => ("application/json", json(status, side, words, id)),
        Form::Text => {
            let title = title(status);
            let request = if id.is_empty() { String::new() } else { format!("Request {id}\n") };
            let text = format!("{title}\n{words} {}\n{request}", side.sentence());
            ("text/plain; charset=utf-8", text)
        }
    };
    let body = Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // An id is printable: see `front::id`.
    if let Ok(id) = HeaderValue::from_str(id)
        && !id.is_empty()
    {
        headers.insert(REQUEST_ID, id);
    }
    response
}

impl Form {
    /// The form that `Accept` names first. Weights are left alone: the page is short and one of three.
    fn wanted(asked: &HeaderMap) -> Self {
        asked
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|values| values.split(','))
            .find_map(|range| {
                let kind = range.split(';').next().unwrap_or_default().trim();
                let is = |known: &str| kind.eq_ignore_ascii_case(known);
                if is("text/html") || is("application/xhtml+xml") {
                    return Some(Self::Html);
                }
                if is("application/json") || kind.to_ascii_lowercase().ends_with("+json") {
                    return Some(Self::Json);
                }
                is("text/plain").then_some(Self::Text)
            })
            .unwrap_or(Self::Text)
    }
}

fn title(status: StatusCode) -> String {
    format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Error"))
}

fn html(status: StatusCode, side: Side, words: &str, id: &str) -> String {
    let title = title(status);
    let request = match id {
        "" => String::new(),
        id => format!("\n<p>Request <code>{}</code></p>", escaped(id)),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body><h1>{title}</h1>\n<p>{} {}</p>{request}</body></html>\n",
        escaped(words),
        side.sentence(),
    )
}

fn json(status: StatusCode, side: Side, words: &str, id: &str) -> String {
    #[derive(Serialize)]
    struct Page<'a> {
        status: u16,
        side: &'static str,
        error: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        request: &'a str,
    }
    let page = Page { status: status.as_u16(), side: side.name(), error: words, request: id };
    // Strings and a number always serialise.
    serde_json::to_string(&page).unwrap_or_default() + "\n"
}

fn escaped(words: &str) -> String {
    let mut escaped = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn accepting(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())])
    }

    async fn read(accept: &str, words: &str) -> (Response<()>, String) {
        let page = page(StatusCode::BAD_GATEWAY, Side::Service, words, "abc", &accepting(accept));
        let (parts, body) = page.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        (Response::from_parts(parts, ()), text)
    }

    #[tokio::test]
    async fn a_page_says_which_side_failed_and_names_the_request() {
        for (accept, content_type) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
            ("application/json", "application/json"),
            ("application/problem+json, text/html", "application/json"),
            ("*/*", "text/plain; charset=utf-8"),
            ("", "text/plain; charset=utf-8"),
        ] {
            let (response, text) = read(accept, "It broke off.").await;
            assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
            assert_eq!(response.headers()[header::CONTENT_TYPE], content_type, "{accept}");
            assert_eq!(response.headers()[REQUEST_ID], "abc");
            assert!(text.contains("It broke off.") && text.contains("abc") && text.contains("502"), "{text}");
            assert!(text.contains("service"), "{text}");
            assert!(!text.contains("gkd") && !text.contains(env!("CARGO_PKG_VERSION")), "{text}");
        }
    }

    #[tokio::test]
    async fn a_request_without_a_name_is_not_named() {
        for accept in ["text/html", "application/json", "text/plain"] {
            let page = page(StatusCode::NOT_FOUND, Side::Request, "None.", "", &accepting(accept));
            assert!(!page.headers().contains_key(REQUEST_ID));
            let text = page.into_body().collect().await.unwrap().to_bytes();
            assert!(!String::from_utf8_lossy(&text).contains("Request <"), "{text:?}");
            assert!(!String::from_utf8_lossy(&text).contains("\"request\":"), "{text:?}");
        }
    }

    #[tokio::test]
    async fn no_words_become_markup() {
        let (_, text) = read("text/html", "<script>&\"'").await;
        assert!(text.contains("&lt;script&gt;&amp;&quot;&#39;") && !text.contains("<script>"), "{text}");
        let (_, text) = read("application/json", "a \"quote\"\n").await;
        let page: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(page["error"], "a \"quote\"\n");
        assert_eq!((&page["side"], &page["status"]), (&Value::from("service"), &Value::from(502)));
    }
}
