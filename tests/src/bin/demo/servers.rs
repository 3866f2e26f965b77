//! The servers of the demo, as plain as servers can be.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use portdemux_tests::netns::Netns;

use super::{ECHO, HTTP, TICKER};

/// How often something that waits looks up.
const GLANCE: Duration = Duration::from_millis(100);

/// Servers that run until they are dropped.
pub(crate) struct Servers {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A server that panicked has said so itself.
            let _: thread::Result<()> = thread.join();
        }
    }
}

/// Starts every server in a namespace, for IPv4 and IPv6.
pub(crate) fn start(namespace: &Netns) -> Result<Servers> {
    // A socket belongs to the namespace that it was made in, wherever it is used.
    let (http, ticker, echo) = namespace.enter(|| {
        Ok((
            listener(HTTP)?,
            listener(TICKER)?,
            UdpSocket::bind((Ipv6Addr::UNSPECIFIED, ECHO))?,
        ))
    })?;
    echo.set_read_timeout(Some(GLANCE))?;
    let stopped = Arc::new(AtomicBool::new(false));
    let threads = vec![
        serve(&stopped, http, answer_http),
        serve(&stopped, ticker, tick),
        thread::spawn({
            let stopped = Arc::clone(&stopped);
            move || answer_echo(&stopped, &echo)
        }),
    ];
    Ok(Servers { stopped, threads })
}

fn listener(port: u16) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Hands every connection to `answer`, on a thread of its own.
fn serve(
    stopped: &Arc<AtomicBool>,
    listener: TcpListener,
    answer: fn(&AtomicBool, TcpStream) -> std::io::Result<()>,
) -> JoinHandle<()> {
    let stopped = Arc::clone(stopped);
    thread::spawn(move || {
        thread::scope(|scope| {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((connection, _)) => {
                        let stopped = &*stopped;
                        // A client that goes away ends its connection and nothing else.
                        scope.spawn(move || answer(stopped, connection).ok());
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
    })
}

/// Answers one request with one page.
fn answer_http(_stopped: &AtomicBool, mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = [0; 1024];
    let _: usize = connection.read(&mut request)?;
    let page = "<p>served through a port that is watched</p>\n";
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    )
}

/// Writes a line ten times a second for as long as the client listens.
fn tick(stopped: &AtomicBool, mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_nonblocking(false)?;
    while !stopped.load(Ordering::Relaxed) {
        connection.write_all(b"tick\n")?;
        thread::sleep(GLANCE);
    }
    Ok(())
}

fn answer_echo(stopped: &AtomicBool, socket: &UdpSocket) {
    let mut datagram = [0; 2048];
    while !stopped.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut datagram) {
            // As lossy as UDP is anyway.
            let _: std::io::Result<usize> = socket.send_to(&datagram[..length], from);
        }
    }
}
