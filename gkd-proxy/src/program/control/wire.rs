//! What is written on the socket: a line of JSON each way.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Request {
    pub(super) command: String,
}

/// An answer, or in the place of one what is wrong.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Answer {
    pub(super) program: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}
