use std::sync::Arc;

use bytes::Bytes;
use gkd_core::proto::packet::{DialError, ResetCode};
use tokio::task::JoinHandle;

use super::*;
use crate::connection::VirtualConnection;
use crate::destination::{Control, Destination};
use crate::dial::Dialer;
use crate::exit::{Exit, ExitError};
use crate::memory::{self, Memory};
use crate::reach::ReachError;
use crate::relay::{End, RelayConfig, Relayed};
use crate::rules::Rules;

/// What these ask for at the most.
const TIME: Duration = Duration::from_secs(10);

type Serving = JoinHandle<Result<Relayed, ExitError>>;

fn exit(on: bool) -> Arc<Exit> {
    Arc::new(Exit::new(Dialer::new(Rules::default()), RelayConfig::default()).measured(on))
}

fn open(exit: &Arc<Exit>) -> (Memory, Serving) {
    let (near, far) = memory::pair(Destination::Control(Control::Measure).encode());
    let exit = exit.clone();
    (near, tokio::spawn(async move { exit.serve(far).await }))
}

/// Asks, and the answer's byte.
async fn ask(near: &Memory, request: &[u8]) -> u8 {
    near.write(request).await.unwrap();
    near.read(1).await.unwrap()[0]
}

fn request(task: Task, bytes: u64) -> [u8; Request::LEN] {
    Request { task, bytes, time: TIME }.encode()
}

#[test]
fn requests_and_reports_come_back_and_are_those_of_the_table() {
    let bytes = request(Task::Swallow, 258);
    assert_eq!(bytes, [2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0x27, 0x10]);
    assert_eq!(Request::decode(&bytes), Ok(Request { task: Task::Swallow, bytes: 258, time: TIME }));
    let report = Report { elapsed: Duration::from_micros(5), bytes: u64::MAX };
    assert_eq!(Report::decode(&report.encode()), report);
    assert_eq!(report.encode()[..8], [0, 0, 0, 0, 0, 0, 0, 5]);
}

#[test]
fn a_refusal_is_known_by_its_byte() {
    for refusal in [Refusal::Unknown, Refusal::TooMuch] {
        assert_eq!(Refusal::from_answer(refusal as u8), Some(refusal));
    }
    assert_eq!((Refusal::from_answer(ACCEPTED), Refusal::from_answer(99)), (None, Some(Refusal::Unknown)));
}

#[tokio::test]
async fn as_many_bytes_are_sent_as_were_asked_for_and_no_more() {
    let (near, serving) = open(&exit(true));
    assert_eq!(ask(&near, &request(Task::Send, 1_000_000)).await, ACCEPTED);
    let content = near.read_to_end().await.unwrap();
    assert_eq!(content.len(), 1_000_000);
    // No stretch of it resembles the one before, so nothing on the way can make it less.
    assert_ne!(content[..1000], content[1000..2000]);
    let relayed = serving.await.unwrap().unwrap();
    assert_eq!((relayed.up, relayed.down), (1_000_000, 0));
    assert!(matches!(relayed.end, End::Finished), "{relayed:?}");
}

#[tokio::test]
async fn what_is_swallowed_is_reported_at_its_end() {
    for (sent, limit) in [(300_000, 1 << 30), (300_000, 200_000), (0, 5)] {
        let (near, serving) = open(&exit(true));
        let near = Arc::new(near);
        assert_eq!(ask(&near, &request(Task::Swallow, limit)).await, ACCEPTED);
        let writer = near.clone();
        let writing = tokio::spawn(async move {
            // What is above the limit is read by nobody.
            writer.write(&vec![7; sent]).await.ok();
            writer.finish().await;
        });
        let reports = near.read_to_end().await.unwrap();
        let last = reports.last_chunk::<{ Report::LEN }>().unwrap();
        let expected = limit.min(sent as u64);
        assert_eq!(Report::decode(last).bytes, expected, "{sent} of {limit}");
        assert_eq!(serving.await.unwrap().unwrap().down, expected);
        writing.abort();
    }
}

#[tokio::test]
async fn what_arrives_comes_back_until_there_was_enough() {
    let (near, serving) = open(&exit(true));
    assert_eq!(ask(&near, &[&request(Task::Echo, 10)[..], b"hello"].concat()).await, ACCEPTED);
    assert_eq!(near.read(5).await.unwrap(), b"hello");
    near.write(b"and more").await.unwrap();
    assert_eq!(near.read_to_end().await.unwrap(), b"and m");
    assert_eq!(serving.await.unwrap().unwrap().up, 10);
}

#[tokio::test(start_paused = true)]
async fn the_time_ends_each_of_them() {
    for task in [Task::Send, Task::Swallow, Task::Echo] {
        let (near, serving) = open(&exit(true));
        assert_eq!(ask(&near, &request(task, MAX_BYTES)).await, ACCEPTED);
        // Nothing is read or written here, so the end comes by the clock, and the opener is not waited for.
        let relayed = tokio::time::timeout(TIME * 3, serving).await.unwrap().unwrap().unwrap();
        assert!(matches!(relayed.end, End::Finished), "{task:?}: {relayed:?}");
        assert!(relayed.up < 1_000_000, "{task:?}: {relayed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_always_has_more_is_not_read_for_ever() {
    let (near, serving) = open(&exit(true));
    assert_eq!(ask(&near, &request(Task::Swallow, MAX_BYTES)).await, ACCEPTED);
    let writing = tokio::spawn(async move {
        while near.write(&[7; 60_000]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let relayed = tokio::time::timeout(TIME * 3, serving).await.unwrap().unwrap().unwrap();
    assert!(relayed.down > 60_000, "{relayed:?}");
    writing.abort();
}

#[tokio::test]
async fn a_wrong_request_is_answered_and_ends() {
    let long = Request { task: Task::Send, bytes: 1, time: MAX_TIME + Duration::from_millis(1) };
    for (request, refusal) in [
        ([0; Request::LEN], Refusal::Unknown),
        ([0xff; Request::LEN], Refusal::Unknown),
        (request(Task::Send, MAX_BYTES + 1), Refusal::TooMuch),
        (long.encode(), Refusal::TooMuch),
    ] {
        let (near, serving) = open(&exit(true));
        assert_eq!(ask(&near, &request).await, refusal as u8);
        assert_eq!(near.read_to_end().await.unwrap(), b"");
        let error = serving.await.unwrap().unwrap_err();
        assert!(
            matches!(error, ExitError::Measure(MeasureError::Refused(told)) if told == refusal),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_half_a_request_is_not_waited_for() {
    let (near, serving) = open(&exit(true));
    near.write(&request(Task::Send, 1)[..5]).await.unwrap();
    let error = serving.await.unwrap().unwrap_err();
    assert!(matches!(error, ExitError::Measure(MeasureError::Late)), "{error}");
    near.until_reset().await;

    let (near, serving) = open(&exit(true));
    near.write(&request(Task::Send, 1)[..5]).await.unwrap();
    near.finish().await;
    let error = serving.await.unwrap().unwrap_err();
    assert!(matches!(error, ExitError::Measure(MeasureError::Cut(_))), "{error}");
}

#[tokio::test]
async fn a_reset_ends_it_at_once() {
    for task in [Task::Send, Task::Swallow, Task::Echo] {
        let (near, serving) = open(&exit(true));
        assert_eq!(ask(&near, &request(task, MAX_BYTES)).await, ACCEPTED);
        near.reset(ResetCode::APPLICATION);
        let relayed = serving.await.unwrap().unwrap();
        assert!(matches!(relayed.end, End::Connection(_)), "{task:?}: {relayed:?}");
    }
}

#[tokio::test]
async fn switched_off_it_is_denied() {
    let (near, serving) = open(&exit(false));
    assert!(matches!(serving.await.unwrap(), Err(ExitError::NotMeasured)));
    assert!(matches!(near.connected().await, Err(ReachError::Dial(DialError::Denied))));
    // What a later version may ask for is another matter.
    let (near, far) = memory::pair(Bytes::from_static(&[4, 2]));
    exit(false).serve(far).await.unwrap_err();
    assert!(matches!(near.connected().await, Err(ReachError::Dial(DialError::NotOffered))));
}

#[tokio::test]
async fn so_many_run_at_a_time_and_those_that_end_make_room() {
    let exit = exit(true);
    let mut running = Vec::new();
    let refused = loop {
        let (near, serving) = open(&exit);
        match near.connected().await {
            Ok(()) => running.push((near, serving)),
            Err(error) => break error,
        }
        assert!(running.len() < 1000, "there is no bound");
    };
    assert!(matches!(refused, ReachError::Dial(DialError::Busy)), "{refused}");
    assert!(running.len() > 10, "{} ran", running.len());
    let (near, serving) = running.pop().unwrap();
    near.reset(ResetCode::APPLICATION);
    serving.await.unwrap().unwrap_err();
    open(&exit).0.connected().await.unwrap();
}
