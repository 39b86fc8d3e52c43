//! An HTTP proxy on the way to a server ([`Via`]): where it is, what is proved to it, and the CONNECT (RFC 9110, section
//! 9.3.6) behind which its connection leads to the server.
//!
//! The server's name goes to the proxy as it is written and is resolved there. Which servers are reached through a proxy
//! is not decided here, and a proxy is spoken to in clear: what runs behind the CONNECT is the carrier's, as on a direct
//! connection.

mod error;
#[cfg(test)]
mod tests;

use std::fmt;
use std::pin::pin;
use std::str::FromStr;

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::client::conn::http1;
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::link::{Address, AddressError};

pub use error::{ProxyError, ViaError};

/// The longest URL of a proxy that is read, in bytes.
const MAX_URL: usize = 2048;

/// The most headers of a proxy's answer.
const MAX_HEADERS: usize = 64;

/// The most bytes of the head of a proxy's answer.
const MAX_HEAD: usize = 16 * 1024;

/// The most characters of a proxy's own words that are shown.
const MAX_SHOWN: usize = 60;

/// An HTTP proxy, and what is proved to it. Read from `http://[USER:PASSWORD@]HOST:PORT`, where `http://` may be left
/// out, and `%` escapes stand for characters of user and password that a URL cannot hold. Neither `Display` nor `Debug`
/// shows user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Via {
    address: Address,
    /// Basic (RFC 7617), marked as secret.
    proof: Option<HeaderValue>,
}

impl Via {
    /// Where the proxy is. It has one port.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Asks the proxy at the other end of `tcp` for a connection to `server`, HOST:PORT. What the server said meanwhile
    /// comes with it. Waits as long as the proxy takes; dropped half-way, the connection is gone.
    pub(super) async fn connect(
        &self,
        tcp: TcpStream,
        server: &str,
    ) -> Result<(TcpStream, Bytes), ProxyError> {
        let not_http = |cause: String| ProxyError::NotHttp { proxy: self.address.to_string(), cause };
        let request = self.request(server).map_err(|error| not_http(error.to_string()))?;
        let handshake = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(tcp));
        let (mut sender, http) = handshake.await.map_err(|error| self.broke_off(&error))?;
        let mut http = pin!(http.without_shutdown());
        let mut answer = pin!(sender.send_request(request));
        let mut ended = None;
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer,
                // Upon its end the answer is there, or why there is none.
                parts = &mut http, if ended.is_none() => ended = Some(parts),
            }
        };
        let answer = answer.map_err(|error| self.broke_off(&error))?;
        if !answer.status().is_success() {
            return Err(self.refused(server, &answer));
        }
        let parts = match ended {
            Some(parts) => parts,
            None => http.await,
        };
        let parts = parts.map_err(|error| self.broke_off(&error))?;
        Ok((parts.io.into_inner(), parts.read_buf))
    }

    /// The CONNECT. An empty text is no body.
    fn request(&self, server: &str) -> Result<Request<String>, hyper::http::Error> {
        let authority: Authority = server.parse()?;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(Uri::builder().authority(authority).build()?)
            .header(header::HOST, server);
        let request = match &self.proof {
            Some(proof) => request.header(header::PROXY_AUTHORIZATION, proof),
            None => request,
        };
        request.body(String::new())
    }

    /// There is no answer, or none in HTTP.
    fn broke_off(&self, error: &hyper::Error) -> ProxyError {
        let proxy = self.address.to_string();
        if error.is_parse() {
            // The library's own words, with nothing of the proxy's in them.
            return ProxyError::NotHttp { proxy, cause: error.to_string() };
        }
        ProxyError::Closed { proxy }
    }

    /// What an answer means that is no success.
    fn refused<B>(&self, server: &str, answer: &Response<B>) -> ProxyError {
        let (proxy, server) = (self.address.to_string(), server.to_owned());
        if answer.status() != StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            let (status, reason) = (answer.status().as_u16(), reason(answer));
            return ProxyError::Refused { proxy, server, status, reason };
        }
        let schemes = schemes(answer);
        // One that names no scheme means the one that there always was.
        if !schemes.is_empty() && !schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
            return ProxyError::NoBasic { proxy, schemes: shown(&schemes.join(", ")) };
        }
        match self.proof {
            None => ProxyError::PasswordWanted { proxy },
            Some(_) => ProxyError::PasswordRefused { proxy },
        }
    }
}

/// What stands behind the status, as the proxy wrote it, or the usual words.
fn reason<B>(answer: &Response<B>) -> String {
    match answer.extensions().get::<ReasonPhrase>() {
        Some(words) => shown(&String::from_utf8_lossy(words.as_bytes())),
        None => answer.status().canonical_reason().unwrap_or_default().to_owned(),
    }
}

/// The names of the ways in which the proxy takes a proof (RFC 9110, section 11.6.1).
fn schemes<B>(answer: &Response<B>) -> Vec<&str> {
    let values = answer.headers().get_all(header::PROXY_AUTHENTICATE).iter();
    let challenges = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // What has a `=` in its first word is a parameter of the challenge in front of it.
    challenges.filter_map(|part| part.split_whitespace().next()).filter(|word| !word.contains('=')).collect()
}

/// A proxy's words as they may stand in an error: short and escaped.
fn shown(words: &str) -> String {
    words.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
}

impl FromStr for Via {
    type Err = ViaError;

    fn from_str(text: &str) -> Result<Self, ViaError> {
        if text.len() > MAX_URL {
            return Err(ViaError::TooLong);
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(ViaError::Blank);
        }
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => return Err(ViaError::of_scheme(scheme)),
            None => text,
        };
        // The last @, for a password may hold one.
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.is_empty() {
            return Err(ViaError::Empty);
        }
        if place.contains(['/', '?', '#']) {
            return Err(ViaError::Behind);
        }
        let address: Address = place.parse().map_err(|error| match error {
            AddressError::NoPort(host) => ViaError::NoPort(host),
            error => ViaError::Address(error),
        })?;
        if address.ports.count() > 1 {
            return Err(ViaError::SeveralPorts);
        }
        Ok(Self { address, proof: user.map(proof).transpose()? })
    }
}

/// The proof of `USER[:PASSWORD]`. Neither may hold control characters, and the user no colon (RFC 7617, section 2).
fn proof(user: &str) -> Result<HeaderValue, ViaError> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (user, password) = (unescape(user)?, unescape(password)?);
    if user.is_empty() && password.is_empty() {
        return Err(ViaError::NoUser);
    }
    if user.contains(':') {
        return Err(ViaError::Colon);
    }
    if user.chars().chain(password.chars()).any(char::is_control) {
        return Err(ViaError::Control);
    }
    let pair = Zeroizing::new(format!("{}:{}", *user, *password));
    let value = Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())));
    let mut value = HeaderValue::from_str(&value).map_err(|_| ViaError::Escape)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads `%XX`.
fn unescape(words: &str) -> Result<Zeroizing<String>, ViaError> {
    let mut bytes = Vec::with_capacity(words.len());
    let mut parts = words.split('%');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        let digits = part.get(..2).ok_or(ViaError::Escape)?;
        // `from_str_radix` would take a sign as well.
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ViaError::Escape);
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| ViaError::Escape)?);
        bytes.extend(part[2..].bytes());
    }
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|_| ViaError::Escape)
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Via({self})")
    }
}
