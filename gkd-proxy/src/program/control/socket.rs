//! The side that answers: the file, those who connect, and the bounds on them ([`Socket`]).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::wire::{Answer, Request};
use super::{Asked, ControlError, user_id};

/// The most bytes of a request: it holds a word.
pub(super) const MAX_REQUEST: usize = 4096;

/// How many are served at a time.
pub(super) const PLACES: usize = 8;

/// How long one exchange may take, from the accept to the last byte.
pub(super) const TIME: Duration = Duration::from_secs(5);

/// The mode of the file.
const OWNER_ONLY: u32 = 0o600;

/// The wait after an accept that failed, for want of descriptors say: the next would fail as well.
const BACKOFF: Duration = Duration::from_secs(1);

/// A socket that is listened on.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    /// Device and inode of the file, by which it is known again.
    file: (u64, u64),
    task: JoinHandle<()>,
}

impl Socket {
    /// Takes the place at `path`; those who ask come out beside it.
    pub(super) async fn open(
        program: &'static str,
        path: &Path,
    ) -> Result<(mpsc::Receiver<Asked>, Self), ControlError> {
        if std::os::unix::net::SocketAddr::from_pathname(path).is_err() {
            return Err(ControlError::TooLong(path.to_owned()));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _lock = lock(folder);
        make_room(program, path).await?;
        let io = |what| move |source| ControlError::Io { what, path: path.to_owned(), source };
        let listener = UnixListener::bind(path).map_err(io("listen at"))?;
        let found = fs::symlink_metadata(path).map_err(io("look at"))?;
        let (sender, asked) = mpsc::channel(PLACES);
        let task = tokio::spawn(serve(program, listener, sender));
        let socket = Self { path: path.to_owned(), file: (found.dev(), found.ino()), task };
        // Who connects before this is asked for its user all the same.
        fs::set_permissions(path, fs::Permissions::from_mode(OWNER_ONLY)).map_err(io("keep others from"))?;
        Ok((asked, socket))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
        // Another may have the place by now, if somebody removed the file.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Removes what programs that died left of sockets of these names in a folder.
pub async fn remove_dead(folder: &Path, names: impl Fn(&str) -> bool) {
    let _lock = lock(folder);
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(&names)) {
        // Whoever lives there stays.
        make_room("a program", &entry.path()).await.ok();
    }
}

/// Two that start at a time must not both find the file of a third that died, nor one the file at which the other is about
/// to listen. Where the file system has no locks they are not kept from that.
fn lock(folder: &Path) -> Option<File> {
    File::open(folder).and_then(|folder| folder.lock().map(|()| folder)).ok()
}

/// Removes the file of a program that died, and nothing else.
async fn make_room(program: &'static str, path: &Path) -> Result<(), ControlError> {
    let io = |what| move |source| ControlError::Io { what, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at")(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ControlError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    let running = |pid| Err(ControlError::Running { program, path: path.to_owned(), pid });
    match UnixStream::connect(path).await {
        Ok(stream) => running(stream.peer_cred().ok().and_then(|it| it.pid())),
        // Its backlog is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => running(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io("remove what a dead process left at"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("look who listens at")(error)),
    }
}

/// Serves those who connect, so many at a time; the others wait to be accepted.
async fn serve(program: &'static str, listener: UnixListener, asked: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(PLACES));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let asked = asked.clone();
                tokio::spawn(async move {
                    let _place = place;
                    match timeout(TIME, exchange(program, stream, asked)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!("who asked at the control socket is gone: {error}"),
                        Err(_) => tracing::debug!("who asked at the control socket took too long"),
                    }
                });
            }
            Err(error) => {
                tracing::debug!("the control socket cannot accept: {error}");
                sleep(BACKOFF).await;
            }
        }
    }
}

/// One request and its answer.
async fn exchange(
    program: &'static str,
    mut stream: UnixStream,
    asked: mpsc::Sender<Asked>,
) -> io::Result<()> {
    let who = stream.peer_cred()?.uid();
    if who != user_id() && who != 0 {
        tracing::debug!("user {who} asked at the control socket, and is not answered");
        return Ok(());
    }
    let answer = match read_request(&mut stream).await? {
        // It only looked whether somebody is there.
        None => return Ok(()),
        Some(Ok(command)) => {
            let (sender, answer) = oneshot::channel();
            // When nobody hears, the sender is dropped.
            asked.send(Asked { command, answer: sender }).await.ok();
            answer.await.unwrap_or_else(|_| Err("it is ending".to_owned()))
        }
        Some(Err(words)) => Err(words),
    };
    let (answer, error) = match answer {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Some(error)),
    };
    let mut text = serde_json::to_vec(&Answer { program: program.to_owned(), answer, error })?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.shutdown().await
}

/// The command of a request, or what is wrong with it; none where nothing was said.
async fn read_request(stream: &mut UnixStream) -> io::Result<Option<Result<String, String>>> {
    let mut text = Vec::new();
    loop {
        if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            text.truncate(end);
            break;
        }
        if text.len() > MAX_REQUEST {
            return Ok(Some(Err(format!("a request has {MAX_REQUEST} bytes at the most"))));
        }
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await? {
            0 if text.is_empty() => return Ok(None),
            0 => break,
            count => text.extend_from_slice(&piece[..count]),
        }
    }
    let request = serde_json::from_slice::<Request>(&text);
    Ok(Some(request.map(|request| request.command).map_err(|error| {
        format!("this is no request ({error}): write a line such as {{\"command\":\"status\"}}")
    })))
}
