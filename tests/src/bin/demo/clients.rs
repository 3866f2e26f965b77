//! The clients of the demo, and what they saw.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use portdemux_tests::{
    frames::{SERVER_V4, SERVER_V6},
    netns::Netns,
};

use super::{ECHO, HTTP, TICKER, check_stopped};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(150);
/// How long a client rests between two requests.
const REST: Duration = Duration::from_millis(15);

/// Clients that ask until they are dropped.
pub(crate) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    http: AtomicU64,
    echo: AtomicU64,
    echo_lost: AtomicU64,
    ticks: AtomicU64,
}

/// What the clients saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Pages that came.
    pub(crate) http: u64,
    /// Echoes that came.
    pub(crate) echo: u64,
    /// Datagrams whose echo did not come.
    pub(crate) echo_lost: u64,
    /// Lines that came on the connection that stays.
    pub(crate) ticks: u64,
}

impl Seen {
    /// What came after something else had been seen.
    pub(crate) const fn since(self, before: Self) -> Self {
        Self {
            http: self.http - before.http,
            echo: self.echo - before.echo,
            echo_lost: self.echo_lost - before.echo_lost,
            ticks: self.ticks - before.ticks,
        }
    }
}

impl Clients {
    /// Starts a client of every kind for IPv4 and IPv6 in a namespace.
    pub(crate) fn start(namespace: &Netns) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        let jobs: [fn(&Shared, IpAddr) -> Result<()>; 2] = [ask_http, ask_echo];
        let mut spawn = |job: fn(&Shared, IpAddr) -> Result<()>, server: IpAddr| -> Result<()> {
            let shared = Arc::clone(&shared);
            // The thread that is made in the namespace stays in it, and its sockets with it.
            threads.push(namespace.enter(move || Ok(thread::spawn(move || job(&shared, server))))?);
            Ok(())
        };
        for server in [IpAddr::V4(SERVER_V4), IpAddr::V6(SERVER_V6)] {
            for job in jobs {
                spawn(job, server)?;
            }
        }
        spawn(listen_to_ticks, IpAddr::V4(SERVER_V4))?;
        Ok(Self { shared, threads })
    }

    /// What they saw so far.
    pub(crate) fn seen(&self) -> Seen {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Seen {
            http: read(&self.shared.http),
            echo: read(&self.shared.echo),
            echo_lost: read(&self.shared.echo_lost),
            ticks: read(&self.shared.ticks),
        }
    }

    /// Waits until they saw something.
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(Seen) -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so(self.seen()) {
            check_stopped()?;
            if Instant::now() > deadline {
                bail!("waited 10 seconds until {what}, and saw {:?}", self.seen());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What a client could not do shows in what was seen.
            let _: thread::Result<Result<()>> = thread.join();
        }
    }
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a client like the others")]
fn ask_http(shared: &Shared, server: IpAddr) -> Result<()> {
    while shared.goes_on() {
        let page = || -> std::io::Result<String> {
            let mut connection =
                TcpStream::connect_timeout(&SocketAddr::new(server, HTTP), PATIENCE)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.write_all(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")?;
            let mut page = String::new();
            let _: usize = connection.read_to_string(&mut page)?;
            Ok(page)
        };
        if page().is_ok_and(|page| page.starts_with("HTTP/1.1 200")) {
            shared.http.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(REST);
    }
    Ok(())
}

fn ask_echo(shared: &Shared, server: IpAddr) -> Result<()> {
    let unspecified: SocketAddr = match server {
        IpAddr::V4(_) => "0.0.0.0:0".parse()?,
        IpAddr::V6(_) => "[::]:0".parse()?,
    };
    let socket = UdpSocket::bind(unspecified)?;
    socket.connect((server, ECHO))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; 16];
    for number in 0u64.. {
        if !shared.goes_on() {
            break;
        }
        let is_answered = socket.send(&number.to_be_bytes()).is_ok()
            && socket
                .recv(&mut answer)
                .is_ok_and(|length| answer[..length] == number.to_be_bytes());
        let count = if is_answered {
            &shared.echo
        } else {
            &shared.echo_lost
        };
        count.fetch_add(1, Ordering::Relaxed);
        thread::sleep(REST);
    }
    Ok(())
}

fn listen_to_ticks(shared: &Shared, server: IpAddr) -> Result<()> {
    let mut connection = TcpStream::connect((server, TICKER))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut line = [0; 5];
    while shared.goes_on() {
        if connection.read_exact(&mut line).is_ok() {
            shared.ticks.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
