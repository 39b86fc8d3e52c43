//! Which tokio runtime the tasks of a client or server run on: the one that calls, else, with the feature
//! `futures-io`, one that this process starts when it is first needed and keeps.

use std::time::Instant;

use tokio::runtime::Handle;

use crate::error::{Error, Result};

/// The runtime to spawn on.
///
/// # Errors
/// [`Error::NoRuntime`] outside of tokio, without the feature `futures-io`.
pub(crate) fn handle() -> Result<Handle> {
    match Handle::try_current() {
        Ok(handle) => Ok(handle),
        Err(_) => own(),
    }
}

#[cfg(feature = "futures-io")]
fn own() -> Result<Handle> {
    use std::sync::OnceLock;
    use tokio::runtime::{Builder, Runtime};

    static OWN: OnceLock<Option<Runtime>> = OnceLock::new();
    let start = || Builder::new_multi_thread().thread_name("gkd").enable_all().build().ok();
    OWN.get_or_init(start).as_ref().map(|runtime| runtime.handle().clone()).ok_or(Error::NoRuntime)
}

#[cfg(not(feature = "futures-io"))]
fn own() -> Result<Handle> {
    Err(Error::NoRuntime)
}

/// Runs a future on the runtime and waits for it, wherever the caller is polled. It goes on when the caller
/// is dropped.
///
/// # Errors
/// [`Error::Fault`] when it panicked or the runtime is shutting down.
pub(crate) async fn run_detached<T: Send + 'static>(
    runtime: &Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    runtime.spawn(future).await.map_err(|_| Error::Fault)
}

/// A timer of this runtime, which may be polled outside of it.
pub(crate) fn sleep_until(runtime: &Handle, deadline: Instant) -> tokio::time::Sleep {
    let _entered = runtime.enter();
    tokio::time::sleep_until(deadline.into())
}
