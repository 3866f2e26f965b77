//! Real servers, each ready when it is handed over and gone when it is dropped.

mod ssh;

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Pid;
pub use ssh::Sshd;
use tempfile::TempDir;

use crate::{
    leftovers,
    netns::Netns,
    run::Running,
    wait::{PATIENCE, wait_until},
};

/// What nginx answers to a request for `/`.
pub const PAGE: &str = "the page behind the port\n";
/// What dnsmasq says the address of [`HOST`] is.
pub const HOST_V4: &str = "198.51.100.53";
/// What dnsmasq says the IPv6 address of [`HOST`] is.
pub const HOST_V6: &str = "2001:db8:53::53";
/// The name that dnsmasq knows.
pub const HOST: &str = "host.example";

/// A protocol whose sockets have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// Listens for connections.
    Tcp,
    /// Receives datagrams.
    Udp,
}

/// A program that serves.
#[derive(Debug)]
pub struct Server {
    process: Running,
    /// Its configuration and data, as long as it runs.
    _directory: Option<TempDir>,
}

impl Server {
    /// nginx on a port of every address: [`PAGE`] at `/`, 1 MiB of zeros at `/big`.
    ///
    /// # Errors
    ///
    /// If it does not start to listen.
    pub fn nginx(namespace: &Netns, port: u16) -> Result<Self> {
        let directory = leftovers::directory("nginx")?;
        let at = directory.path();
        fs::create_dir(at.join("html"))?;
        fs::write(at.join("html/index.html"), PAGE)?;
        fs::write(at.join("html/big"), vec![0; 1 << 20])?;
        // The worker is not root and has to get to its files.
        set_mode(at, 0o755)?;
        let configuration = format!(
            "daemon off; pid {at}/pid; error_log stderr; worker_processes 1;
             events {{ worker_connections 256; }}
             http {{
                 access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;
                 fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
                 server {{ listen {port}; listen [::]:{port}; root {at}/html; }}
             }}",
            at = at.display(),
        );
        let file = at.join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = namespace.command("nginx");
        command
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(at)
            .args(["-e", "stderr"]);
        Self::start(command, Socket::Tcp, port, Some(directory))
    }

    /// dnsmasq on a port of every address, for UDP and TCP, knowing only [`HOST`].
    ///
    /// # Errors
    ///
    /// If it does not start to listen.
    pub fn dnsmasq(namespace: &Netns, port: u16) -> Result<Self> {
        let mut command = namespace.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--pid-file",
            "--log-facility=-",
            &format!("--port={port}"),
            &format!("--host-record={HOST},{HOST_V4},{HOST_V6}"),
        ]);
        Self::start(command, Socket::Udp, port, None)
    }

    /// iperf3 on a port of every address, for any number of tests one after the other.
    ///
    /// # Errors
    ///
    /// If it does not start to listen.
    pub fn iperf3(namespace: &Netns, port: u16) -> Result<Self> {
        let mut command = namespace.command("iperf3");
        command.args(["--server", "--port", &port.to_string(), "--forceflush"]);
        Self::start(command, Socket::Tcp, port, None)
    }

    /// Echoes what each connection to a port of any address says.
    ///
    /// # Errors
    ///
    /// If it does not start to listen.
    pub fn tcp_echo(namespace: &Netns, port: u16) -> Result<Self> {
        let mut command = namespace.command("socat");
        command.args([
            &format!("TCP6-LISTEN:{port},fork,reuseaddr,ipv6only=0"),
            "EXEC:cat",
        ]);
        Self::start(command, Socket::Tcp, port, None)
    }

    /// Echoes each datagram to a port of any address.
    ///
    /// # Errors
    ///
    /// If it does not start to listen.
    pub fn udp_echo(namespace: &Netns, port: u16) -> Result<Self> {
        let mut command = namespace.command("socat");
        command.args([&format!("UDP6-RECVFROM:{port},fork,ipv6only=0"), "EXEC:cat"]);
        Self::start(command, Socket::Udp, port, None)
    }

    /// Starts any command that will have a socket on `port`, and waits for that.
    ///
    /// # Errors
    ///
    /// If it ends or does not get its socket, with what it said.
    pub fn start(
        command: Command,
        socket: Socket,
        port: u16,
        directory: Option<TempDir>,
    ) -> Result<Self> {
        let mut process = Running::spawn(command)?;
        let pid = process.pid();
        let ready = wait_until(&format!("a socket on port {port}"), PATIENCE, || {
            if !process.is_running()? {
                bail!("it ended");
            }
            Ok(has_socket(pid, socket, port))
        });
        ready.with_context(|| format!("{}{}", process.stdout(), process.stderr()))?;
        Ok(Self {
            process,
            _directory: directory,
        })
    }

    /// The program.
    #[must_use]
    pub const fn process(&self) -> &Running {
        &self.process
    }
}

/// Whether the network namespace of a process has a socket that waits on a port.
fn has_socket(pid: Pid, socket: Socket, port: u16) -> bool {
    // States of net/tcp_states.h: 0A is listening, 07 is what an unconnected UDP socket has.
    let (names, state) = match socket {
        Socket::Tcp => (["tcp", "tcp6"], "0A"),
        Socket::Udp => (["udp", "udp6"], "07"),
    };
    let suffix = format!(":{port:04X}");
    names.iter().any(|name| {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|local| local.ends_with(&suffix))
                && fields.nth(1) == Some(state)
        })
    })
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("make {} readable", path.display()))
}
