//! The load: connections that carry checked content both ways at the same time, each direction until its
//! bytes are sent or somebody tells it to end, then ended in order. A thread a direction and end.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::figures::{Connection, Figures, Socket, Timeline};
use crate::socks;
use crate::{Result, Run};
use gkd_load::content::{Content, PIECE, Way};

/// What a program reads until it stops reading, where it is to.
const READ_BEFORE_STOP: u64 = 1024 * 1024;

/// How long a destination that no program waits for may take to turn up, and how often that is looked at.
const LATE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// How often a writer that is held to a rate writes.
const PACE: Duration = Duration::from_millis(2);

/// What all threads share.
struct Load {
    options: Run,
    connections: Vec<Connection>,
    timeline: Timeline,
    start: Instant,
    /// Those that do not stop reading and have not ended, and who waits for them.
    reading: Mutex<u32>,
    all_read: Condvar,
    /// Nothing more is to be written.
    told: AtomicBool,
}

/// Moves everything; prints the figures. False when a byte was lost or wrong, or something did not end.
pub(crate) fn run(options: &Run) -> Result<bool> {
    let to = options.ends.to;
    let listener = TcpListener::bind(to).map_err(|error| format!("cannot listen on {to}: {error}"))?;
    let total = options.connections + options.stopped;
    let limit = Duration::from_secs(options.ends.limit);
    let load = Arc::new(Load {
        connections: (0..total).map(|_| Connection::default()).collect(),
        timeline: Timeline::new(limit),
        start: Instant::now(),
        reading: Mutex::new(options.connections),
        all_read: Condvar::new(),
        told: AtomicBool::new(false),
        options: options.clone(),
    });
    let accepting = load.clone();
    thread::spawn(move || accepting.accept(&listener));
    for index in 0..total as usize {
        let load = load.clone();
        load.connections[index].near.begun.store(true, Ordering::SeqCst);
        thread::spawn(move || load.program(index));
    }
    if options.until_told {
        let load = load.clone();
        thread::spawn(move || {
            io::copy(&mut io::stdin(), &mut io::sink()).ok();
            load.told.store(true, Ordering::Relaxed);
        });
    }
    load.wait(limit);
    let figures = Figures::of(&load.connections, &load.timeline, load.start.elapsed());
    println!("{figures}");
    if let Some(path) = &options.timeline {
        load.timeline.write(path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(figures.is_good())
}

impl Load {
    /// Waits until every socket has ended.
    fn wait(&self, limit: Duration) {
        let ended =
            |socket: &Socket| !socket.begun.load(Ordering::SeqCst) || socket.ended.load(Ordering::SeqCst);
        let mut over_since = None;
        while self.start.elapsed() < limit {
            let near = self.connections.iter().all(|connection| ended(&connection.near));
            let far = self.connections.iter().all(|connection| ended(&connection.far));
            let missing = self.connections.iter().any(|c| !c.far.begun.load(Ordering::SeqCst));
            let over_since = over_since.get_or_insert_with(Instant::now);
            match (near && far, missing) {
                (true, false) => return,
                (true, true) if over_since.elapsed() > LATE => return,
                (true, true) => {}
                (false, _) => *over_since = Instant::now(),
            }
            thread::sleep(LOOK);
        }
    }

    // ---- the two ends ----

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            let load = self.clone();
            thread::spawn(move || load.destination(stream));
        }
    }

    fn destination(self: &Arc<Self>, mut stream: TcpStream) {
        let mut index = [0; 8];
        let named = stream.read_exact(&mut index).is_ok();
        let index = u64::from_be_bytes(index) as usize;
        // One that was reset before it told is seen at the program's end.
        let Some(connection) = self.connections.get(index).filter(|_| named) else { return };
        connection.far.begun.store(true, Ordering::SeqCst);
        self.exchange(index, &connection.far, stream, Way::Up);
    }

    fn program(self: &Arc<Self>, index: usize) {
        let connection = &self.connections[index];
        let open = || -> io::Result<TcpStream> {
            let mut stream = socks::connect(self.options.ends.proxy, self.options.ends.to)?;
            stream.write_all(&(index as u64).to_be_bytes())?;
            Ok(stream)
        };
        match open() {
            Ok(stream) => self.exchange(index, &connection.near, stream, Way::Down),
            Err(_) => self.met_reset(&connection.near),
        }
        connection.near.ended.store(true, Ordering::SeqCst);
        if !self.stops(index) {
            *self.reading.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
            self.all_read.notify_all();
        }
    }

    /// Reads one way and writes the other until both have ended.
    fn exchange(self: &Arc<Self>, index: usize, socket: &Socket, stream: TcpStream, reads: Way) {
        let writes = if reads == Way::Down { Way::Up } else { Way::Down };
        thread::scope(|scope| {
            let stream = &stream;
            scope.spawn(move || {
                let written = self.write(index, stream, writes);
                // A reset; of an end in order nothing is told here.
                written
                    .and_then(|()| stream.shutdown(Shutdown::Write))
                    .or_else(|error| self.judge(socket, error))
                    .ok();
            });
            if let Err(error) = self.read(index, stream, reads) {
                self.judge(socket, error).ok();
            }
        });
        socket.ended.store(true, Ordering::SeqCst);
    }

    fn judge(&self, socket: &Socket, error: io::Error) -> io::Result<()> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
        if !matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected) {
            eprintln!("gkd-load: a socket ended with {error}");
        }
        self.met_reset(socket);
        Ok(())
    }

    fn met_reset(&self, socket: &Socket) {
        let now = self.timeline.now();
        socket.reset.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst).ok();
    }

    // ---- the two ways ----

    fn write(&self, index: usize, mut stream: &TcpStream, way: Way) -> io::Result<()> {
        let mut content = Content::new(index as u64, way);
        let lane = self.connections[index].lane(way);
        let total = if way == Way::Down { self.options.down } else { self.options.up };
        let share = self.share(total, index);
        while content.position() < share && !self.told.load(Ordering::Relaxed) {
            let allowed = self.allowed().saturating_sub(content.position());
            if allowed < 1 {
                thread::sleep(PACE);
                continue;
            }
            let count = stream.write(content.ahead(allowed.min(share - content.position())))?;
            content.advance(count);
            lane.sent.fetch_add(count as u64, Ordering::SeqCst);
        }
        Ok(())
    }

    /// What a connection may have written in one direction by now.
    fn allowed(&self) -> u64 {
        self.options.mbit.map_or(u64::MAX, |mbit| {
            let all = u128::from(mbit) * self.start.elapsed().as_micros() / 8;
            (all / self.connections.len() as u128) as u64
        })
    }

    /// What one connection has to carry of so many bytes.
    fn share(&self, total: u64, index: usize) -> u64 {
        let count = self.connections.len() as u64;
        match total {
            u64::MAX => u64::MAX,
            total => total / count + u64::from((index as u64) < total % count),
        }
    }

    fn read(&self, index: usize, mut stream: &TcpStream, way: Way) -> io::Result<()> {
        let mut content = Content::new(index as u64, way);
        let lane = self.connections[index].lane(way);
        let stops = self.stops(index);
        let mut buffer = vec![0; PIECE];
        let mut last = None;
        loop {
            if stops && way == Way::Down && content.position() >= READ_BEFORE_STOP {
                self.wait_for_the_others();
            }
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                lane.whole.store(true, Ordering::SeqCst);
                return Ok(());
            }
            let wrong = content.check(&buffer[..count]);
            lane.wrong.fetch_add(wrong, Ordering::SeqCst);
            lane.received.fetch_add(count as u64, Ordering::SeqCst);
            if !stops {
                self.timeline.arrived(way, count);
                let now = Instant::now();
                let waited = last.replace(now).map_or(Duration::ZERO, |last| now - last);
                lane.longest_wait.fetch_max(waited.as_micros() as u64, Ordering::Relaxed);
            }
        }
    }

    fn stops(&self, index: usize) -> bool {
        index >= self.options.connections as usize
    }

    fn wait_for_the_others(&self) {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        while *reading > 0 {
            reading = self.all_read.wait(reading).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
