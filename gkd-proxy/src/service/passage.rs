//! Whether there is a way to a client's target ([`Passage`]), by the tunnels of its session ([`follow`]). What follows from it for
//! requests is decided elsewhere.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::connection::Opener;

/// How long a client may be without a tunnel until the way to it counts as gone: one that dials again is back by then.
const NO_TUNNEL: Duration = Duration::from_secs(1);

/// Whether there is a way to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// As far as is known.
    Open,
    /// There is none at the moment, and may be again in the next.
    Doubtful,
    /// There is none. It may come back all the same, and nothing is lost then that was on it.
    Gone,
}

/// Tells of the way over a session, as long as the task runs that is given with it. Must be called on the runtime.
pub(super) fn follow(opener: impl Opener) -> (watch::Receiver<Passage>, AbortOnDropHandle<()>) {
    let (passage, told) = watch::channel(Passage::Open);
    let task = tokio::spawn(async move {
        loop {
            opener.down().await;
            passage.send_replace(Passage::Doubtful);
            let back = match timeout(NO_TUNNEL, opener.up()).await {
                Ok(back) => back,
                Err(_) => {
                    passage.send_replace(Passage::Gone);
                    opener.up().await
                }
            };
            passage.send_replace(if back { Passage::Open } else { Passage::Gone });
            if !back {
                // The session has ended.
                return;
            }
        }
    });
    (told, AbortOnDropHandle::new(task))
}

/// Waits until the way is gone; for ever where nobody tells of it any more.
pub(super) async fn gone(passage: &mut watch::Receiver<Passage>) {
    if passage.wait_for(|passage| *passage == Passage::Gone).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    #[tokio::test(start_paused = true)]
    async fn a_way_is_gone_when_tunnels_are_for_too_long_and_back_with_the_first() {
        let (session, _far) = memory::opener();
        let (mut passage, _task) = follow(session.clone());
        let now = |passage: &watch::Receiver<Passage>| *passage.borrow();
        assert_eq!(now(&passage), Passage::Open);
        // One that flaps is never gone.
        for _ in 0..5 {
            session.cut();
            passage.wait_for(|passage| *passage == Passage::Doubtful).await.unwrap();
            tokio::time::sleep(NO_TUNNEL / 2).await;
            assert_eq!(now(&passage), Passage::Doubtful);
            session.mend();
            passage.wait_for(|passage| *passage == Passage::Open).await.unwrap();
        }
        session.cut();
        gone(&mut passage).await;
        tokio::time::sleep(NO_TUNNEL * 10).await;
        assert_eq!(now(&passage), Passage::Gone);
        session.mend();
        passage.wait_for(|passage| *passage == Passage::Open).await.unwrap();
        // With its end it is gone at once, and for ever.
        session.end();
        gone(&mut passage).await;
        assert!(passage.changed().await.is_err());
    }
}
