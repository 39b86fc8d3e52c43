//! Bodies on their way from one side of a proxy to the other: [`Upload`] of requests, [`Download`] of answers. They pass as
//! they come; nothing of them is held here, and nothing is read before the other side wants it.

mod download;
mod upload;

pub(crate) use download::{Download, Exchange, Patience};
pub(crate) use upload::{Upload, Watch, expecting};

/// What ends a body that is not whole.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
