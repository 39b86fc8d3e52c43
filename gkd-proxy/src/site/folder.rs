//! A folder as a site: files by their path, `index.html` of folders, conditional requests and ranges. Nothing is listed,
//! and nothing is sent that is not in the folder.
//!
//! Which files there are for visitors, [`inside`](crate::inside) says.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use gkd_core::seldom::Seldom;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header;
use hyper::{Request, Response, StatusCode};
use tower_http::services::ServeDir;
use tower_http::services::fs::DefaultServeDirFallback;

use super::body::Shared;
use super::{HTML, SiteBody, page, page_body};
use crate::inside::{Inside, is_absence};

/// A folder.
pub(super) struct Folder {
    files: Inside,
    serve: ServeDir<DefaultServeDirFallback, Inside>,
    /// Visitors cause these lines.
    complaints: Seldom,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        let files = Inside::new(root);
        // One range is worth serving; whoever asks for several gets the file.
        let serve = ServeDir::with_backend(files.root(), files.clone()).ignore_multi_range_requests(true);
        Self { files, serve, complaints: Seldom::default() }
    }

    pub(super) fn root(&self) -> &Path {
        self.files.root()
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<SiteBody> {
        let (mut head, _) = request.into_parts();
        let path = head.uri.path();
        // A path of other characters than a URI's would be an impossible header where a folder is redirected to itself
        // with a slash, and one that begins with two slashes would be another host there.
        if !path.is_ascii() || path.starts_with("//") {
            return page(StatusCode::NOT_FOUND);
        }
        // Whether it still holds is not looked at, so the file goes whole.
        if head.headers.contains_key(header::IF_RANGE) {
            head.headers.remove(header::RANGE);
        }
        match self.serve.clone().try_call(Request::from_parts(head, ())).await {
            Ok(response) => told(response.map(|body| Shared(Mutex::new(body)).boxed())),
            Err(error) if is_absence(&error) => page(StatusCode::NOT_FOUND),
            Err(error) => {
                let cause = error.to_string();
                if let Some(more) = self.complaints.note(&cause) {
                    tracing::warn!("a file of the site cannot be read: {}{more}", cause.escape_debug());
                }
                page(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

/// An error's page has words.
fn told(mut response: Response<SiteBody>) -> Response<SiteBody> {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().insert(header::CONTENT_TYPE, HTML);
        *response.body_mut() = page_body(status);
    }
    response
}
