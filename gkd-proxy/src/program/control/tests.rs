//! Who asks wrongly, slowly or in numbers, and what else may stand where the socket is to be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

use super::socket::{MAX_REQUEST, PLACES, TIME};
use super::*;

const PROGRAM: &str = "gkd-test";

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// A program that answers every command with itself in capitals, but "wrong", which it refuses.
    async fn open(&self) -> tokio::task::JoinHandle<()> {
        let mut control = Control::open(PROGRAM, &self.path()).await.unwrap();
        tokio::spawn(async move {
            loop {
                let asked = control.next().await;
                match asked.command().to_owned() {
                    command if command == "wrong" => asked.answer(Err::<(), _>("it is wrong")),
                    command if command == "drop" => drop(asked),
                    command if command == "other" => asked.answer_unknown(),
                    command => asked.answer(Ok::<_, String>(command.to_uppercase())),
                }
            }
        })
    }

    async fn ask(&self, command: &str) -> Result<Value, AskError> {
        asking::ask(PROGRAM, &self.path(), command).await
    }

    /// Writes this, and reads what is answered.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.path()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }
}

#[tokio::test]
async fn commands_are_answered_or_refused_in_the_programs_words() {
    let place = Place::new();
    let _program = place.open().await;
    assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(place.ask("status").await.unwrap(), Value::from("STATUS"));
    let error = place.ask("wrong").await.unwrap_err();
    assert!(matches!(&error, AskError::Refused(words) if words == "it is wrong"), "{error}");
    let error = place.ask("drop").await.unwrap_err();
    assert!(matches!(&error, AskError::Refused(words) if words == "it is ending"), "{error}");
    let error = place.ask("other").await.unwrap_err().to_string();
    assert!(error.contains("knows no \"other\""), "{error}");
}

#[tokio::test]
async fn what_is_no_request_is_told_so_and_ends_nothing() {
    let place = Place::new();
    let _program = place.open().await;
    for garbage in [&b"\n"[..], b"status\n", b"{\"command\":1}\n", b"\xff\xfe\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let answer = place.say(garbage).await;
        assert!(answer.contains("this is no request") && answer.ends_with("}\n"), "{answer}");
    }
    let long = vec![b' '; MAX_REQUEST + 1];
    let answer = place.say(&long).await;
    assert!(answer.contains("4096 bytes at the most"), "{answer}");
    // One that only looks whether somebody is there.
    drop(UnixStream::connect(place.path()).await.unwrap());
    assert_eq!(place.ask("status").await.unwrap(), Value::from("STATUS"));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_closed_and_those_who_come_behind_wait_for_no_more() {
    let place = Place::new();
    let _program = place.open().await;
    let mut silent = Vec::new();
    for _ in 0..PLACES {
        let mut stream = UnixStream::connect(place.path()).await.unwrap();
        // Half a request.
        stream.write_all(b"{").await.unwrap();
        silent.push(stream);
    }
    let began = Instant::now();
    assert_eq!(place.ask("status").await.unwrap(), Value::from("STATUS"));
    assert!(began.elapsed() >= TIME, "there was a ninth place");
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_second_start_is_told_which_process_has_the_place_and_does_not_take_it() {
    let place = Place::new();
    let _program = place.open().await;
    let error = Control::open(PROGRAM, &place.path()).await.unwrap_err();
    assert!(matches!(error, ControlError::Running { .. }), "{error}");
    #[cfg(target_os = "linux")]
    assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
    assert_eq!(place.ask("status").await.unwrap(), Value::from("STATUS"));
}

#[tokio::test]
async fn what_a_dead_process_left_is_replaced_and_the_file_goes_with_the_program() {
    let place = Place::new();
    drop(UnixListener::bind(place.path()).unwrap());
    assert!(place.path().exists());
    assert!(matches!(place.ask("status").await, Err(AskError::Nobody(_))));
    let program = place.open().await;
    assert_eq!(place.ask("status").await.unwrap(), Value::from("STATUS"));
    program.abort();
    program.await.unwrap_err();
    assert!(!place.path().exists());
    assert!(matches!(place.ask("status").await, Err(AskError::Nobody(_))));
}

#[tokio::test]
async fn the_file_of_a_successor_is_left_to_it() {
    let place = Place::new();
    let first = Control::open(PROGRAM, &place.path()).await.unwrap();
    fs::remove_file(place.path()).unwrap();
    let _second = place.open().await;
    drop(first);
    assert_eq!(place.ask("status").await.unwrap(), Value::from("STATUS"));
}

#[tokio::test]
async fn a_file_that_is_no_socket_stays_as_it_is() {
    let place = Place::new();
    fs::write(place.path(), "a letter").unwrap();
    let error = Control::open(PROGRAM, &place.path()).await.unwrap_err();
    assert!(error.to_string().ends_with("control.sock is no socket: move it away"), "{error}");
    assert_eq!(fs::read_to_string(place.path()).unwrap(), "a letter");
    assert!(matches!(place.ask("status").await, Err(AskError::Nobody(_))));
}

#[tokio::test]
async fn what_answers_otherwise_is_no_program_of_ours() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path()).unwrap();
    let answers = ["", "hello\n", "{\"program\":\"other\",\"answer\":1}\n", "{\"program\":\"gkd-test\"}\n"];
    let stranger = tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    for (answer, part) in answers.iter().zip(["nothing", "no gkd-test", "no gkd-test", "no gkd-test"]) {
        let error = place.ask("status").await.unwrap_err();
        // An answer may be cut by what its program left unread.
        let cut = error.to_string().contains("reset");
        assert!(matches!(error, AskError::Failed { .. }), "{answer}: {error}");
        assert!(cut || error.to_string().contains(part), "{answer}: {error}");
    }
    stranger.await.unwrap();
}

#[tokio::test]
async fn a_path_that_is_too_long_is_told_with_its_bound() {
    let place = Place::new();
    let path = place.folder.path().join("x".repeat(MAX_PATH)).join("control.sock");
    let error = Control::open(PROGRAM, &path).await.unwrap_err();
    assert!(matches!(error, ControlError::TooLong(_)), "{error}");
    assert!(error.to_string().contains(&format!("may have {MAX_PATH}: choose a shorter")), "{error}");
    // The longest that fits does.
    let base = place.folder.path().as_os_str().len();
    let fits = place.folder.path().join("x".repeat(MAX_PATH - base - 1));
    assert_eq!(fits.as_os_str().len(), MAX_PATH);
    drop(Control::open(PROGRAM, &fits).await.unwrap());
}

#[tokio::test]
async fn without_a_socket_nobody_ever_asks() {
    let mut none = Control::none();
    assert!(timeout_is_met(none.next()).await);
}

async fn timeout_is_met(never: impl Future) -> bool {
    tokio::time::timeout(Duration::from_millis(20), never).await.is_err()
}

#[test]
fn a_folder_that_is_not_the_users_alone_is_refused() {
    let place = Place::new();
    let folder = place.folder.path().join("gkd");
    make_own_folder(&folder).unwrap();
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o700);
    make_own_folder(&folder).unwrap();

    let refused = |path: &Path| make_own_folder(path).unwrap_err().to_string();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
    assert!(refused(&folder).contains("can be written to by others"), "{}", refused(&folder));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    make_own_folder(&folder).unwrap();

    let link = place.folder.path().join("link");
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    assert!(refused(&link).contains("is no folder"), "{}", refused(&link));
    let file = place.folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refused(&file).contains("is no folder"), "{}", refused(&file));
    assert!(refused(&place.folder.path().join("no/where")).contains("cannot make"));
    if user_id() == 0 {
        std::os::unix::fs::chown(&folder, Some(1), None).unwrap();
        assert!(refused(&folder).contains("belongs to another user"), "{}", refused(&folder));
    } else {
        assert!(refused(Path::new("/etc")).contains("belongs to another user"));
    }
}
