//! Reaching a Unix socket of this end: [`Dialer::reach_socket`], by rules, and [`Dialer::reach_own_socket`].
//!
//! What a path leads to is opened once, judged by the path that it really has, and that very file is dialled: so a link
//! that changes between check and dial leads nowhere else, as a name does not. Where the system has no such way in (all
//! but Linux), the real path is judged and dialled, and whoever can put a link into it meanwhile decides.

use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::{DialCause, DialFailure, Dialer};
use crate::destination::UnixPath;

/// How long a service whose queue is full is given before it is asked again: its socket does not keep whoever comes
/// waiting, as a TCP one does.
const QUEUE_FULL: Duration = Duration::from_millis(20);

impl Dialer {
    /// Reaches a socket within the rules: it, and the path that it really has.
    pub(crate) async fn reach_socket(&self, path: &UnixPath) -> Result<(UnixStream, PathBuf), DialFailure> {
        // Ahead of the file system: who may not, learns nothing of what is there.
        if self.rules.check_path(Path::new(path.as_str())).is_err() {
            return Err(DialCause::Path(None).into());
        }
        self.in_time(async {
            let asked = path.clone();
            // A folder may be on another machine that does not answer.
            let found = tokio::task::spawn_blocking(move || Found::open(Path::new(asked.as_str())));
            let found = found.await.map_err(io::Error::other).and_then(|found| found);
            let found = found.map_err(DialCause::Socket)?;
            if self.rules.check_path(&found.real).is_err() {
                return Err(DialCause::Path(Some(found.real)).into());
            }
            let socket = connect(&found.way()).await.map_err(DialCause::Socket)?;
            Ok((socket, found.real))
        })
        .await
    }

    /// Reaches a socket that this end itself named, wherever its path leads.
    pub(crate) async fn reach_own_socket(&self, path: &UnixPath) -> Result<UnixStream, DialFailure> {
        let path = Path::new(path.as_str());
        self.in_time(async { Ok(connect(path).await.map_err(DialCause::Socket)?) }).await
    }

    async fn in_time<T>(
        &self,
        dialled: impl Future<Output = Result<T, DialFailure>>,
    ) -> Result<T, DialFailure> {
        let dialled = timeout(self.timeout, dialled).await;
        dialled.unwrap_or_else(|_| Err(DialCause::TimedOut(self.timeout).into()))
    }
}

/// Ends: whoever calls it does so within a time-out.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(QUEUE_FULL).await,
            other => return other,
        }
    }
}

/// What a path led to.
struct Found {
    /// Without any link.
    real: PathBuf,
    /// Open for nothing but to name it.
    #[cfg(target_os = "linux")]
    file: fs::File,
}

#[cfg(target_os = "linux")]
impl Found {
    fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;

        let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
        let real = fs::read_link(of_descriptor(&file))?;
        Ok(Self { real, file })
    }

    /// The path by which it is dialled.
    fn way(&self) -> PathBuf {
        of_descriptor(&self.file)
    }
}

/// The path by which the system knows an open file of this process (proc(5)).
#[cfg(target_os = "linux")]
fn of_descriptor(file: &fs::File) -> PathBuf {
    use std::os::fd::AsRawFd;

    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(not(target_os = "linux"))]
impl Found {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { real: fs::canonicalize(path)? })
    }

    /// The path by which it is dialled.
    fn way(&self) -> PathBuf {
        self.real.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use gkd_core::proto::packet::DialError;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;
    use crate::rules::{Paths, Rules};

    fn dialer(rules: &[String]) -> Dialer {
        let paths = Paths::new(rules.iter().map(|rule| rule.parse().unwrap()));
        Dialer::new(Rules::none().with_paths(paths))
    }

    fn path(path: &Path) -> UnixPath {
        UnixPath::new(path.to_str().unwrap()).unwrap()
    }

    /// A folder whose path has no link in it.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let real = temp.path().canonicalize().unwrap();
        (temp, real)
    }

    #[tokio::test]
    async fn what_the_rules_name_is_reached() {
        let (_temp, folder) = folder();
        let socket = folder.join("a.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        for rule in [socket.display().to_string(), format!("{}/*", folder.display())] {
            let (mut stream, real) = dialer(&[rule]).reach_socket(&path(&socket)).await.unwrap();
            assert_eq!(real, socket);
            let (service, _) = listener.accept().await.unwrap();
            service.try_write(b"x").unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'x');
        }
        let failure = dialer(&[]).reach_socket(&path(&socket)).await.unwrap_err();
        assert_eq!(failure.error, DialError::Denied);
        // The same, whether it is there or not.
        let other = dialer(&[]).reach_socket(&path(&folder.join("none"))).await.unwrap_err();
        assert_eq!((other.error, other.to_string()), (failure.error, failure.to_string()));
    }

    #[tokio::test]
    async fn a_link_leads_no_further_than_the_rules() {
        let (_temp, folder) = folder();
        let (inside, outside) = (folder.join("in"), folder.join("out"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(&outside).unwrap();
        let secret = outside.join("secret.sock");
        let open = inside.join("open.sock");
        let (_secret, _open) = (UnixListener::bind(&secret).unwrap(), UnixListener::bind(&open).unwrap());
        symlink(&secret, inside.join("file")).unwrap();
        symlink(&outside, inside.join("folder")).unwrap();
        symlink(&open, inside.join("same")).unwrap();
        symlink(inside.join("loop"), inside.join("loop")).unwrap();
        let dialer = dialer(&[format!("{}/*", inside.display())]);
        for (name, error) in [
            ("file", DialError::Denied),
            ("folder/secret.sock", DialError::Denied),
            ("../out/secret.sock", DialError::Denied),
            ("none", DialError::Unreachable),
            ("loop", DialError::Failed),
            // No socket.
            ("folder", DialError::Denied),
        ] {
            let failure = dialer.reach_socket(&path(&inside.join(name))).await.unwrap_err();
            assert_eq!(failure.error, error, "{name}: {failure}");
        }
        let failure = dialer.reach_socket(&path(&inside.join("file"))).await.unwrap_err().to_string();
        assert!(failure.contains("out/secret.sock"), "{failure}");
        let (_, real) = dialer.reach_socket(&path(&inside.join("same"))).await.unwrap();
        assert_eq!(real, open);
    }

    /// Whatever the path leads to the next moment.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_was_judged_is_what_is_dialled() {
        let (_temp, folder) = folder();
        let (asked, other) = (folder.join("asked"), folder.join("other"));
        let right = UnixListener::bind(&asked).unwrap();
        let _wrong = UnixListener::bind(&other).unwrap();
        let found = Found::open(&asked).unwrap();
        std::fs::rename(&asked, folder.join("moved")).unwrap();
        symlink(&other, &asked).unwrap();
        let way = found.way();
        let (connected, accepted) = tokio::join!(connect(&way), right.accept());
        connected.unwrap();
        accepted.unwrap();
    }

    #[tokio::test]
    async fn a_service_whose_queue_is_full_is_waited_for() {
        let (_temp, folder) = folder();
        let at = folder.join("busy.sock");
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&at).unwrap()).unwrap();
        socket.listen(0).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into()).unwrap();
        let dialer = dialer(&[at.display().to_string()]);
        let at = path(&at);
        let first = dialer.reach_socket(&at).await.unwrap();
        let hasty =
            dialer.clone().with_timeout(Duration::from_millis(60)).reach_socket(&at).await.unwrap_err();
        assert_eq!(hasty.error, DialError::TimedOut, "{hasty}");
        let serve = async {
            listener.accept().await.unwrap();
            listener.accept().await.unwrap();
        };
        let (second, ()) = tokio::join!(dialer.reach_own_socket(&at), serve);
        second.unwrap();
        drop(first);
    }
}
