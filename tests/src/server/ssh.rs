//! An SSH server that lets in one key, made for it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Result;
use tempfile::TempDir;

use super::{Server, Socket};
use crate::{leftovers, netns::Netns, run};

/// sshd, and what its only user needs to log in.
#[derive(Debug)]
pub struct Sshd {
    /// The program.
    pub server: Server,
    directory: TempDir,
    port: u16,
}

impl Sshd {
    /// Starts sshd on a port of every address, with keys of its own and for nobody else.
    ///
    /// # Errors
    ///
    /// If keys cannot be made or it does not start to listen.
    pub fn new(namespace: &Netns, port: u16) -> Result<Self> {
        let directory = leftovers::directory("sshd")?;
        for key in ["host", "user"] {
            let mut command = Command::new("ssh-keygen");
            command
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(directory.path().join(key));
            run::run(command)?.success()?;
        }
        let at = directory.path().display();
        let configuration = format!(
            "HostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\nPidFile none\nStrictModes no\n\
             UsePAM no\nUseDNS no\nPasswordAuthentication no\nPermitRootLogin yes\nPort {port}\n"
        );
        let file = directory.path().join("sshd_config");
        fs::write(&file, configuration)?;
        // Debian's sshd wants this directory, which its service makes at each start.
        fs::create_dir_all("/run/sshd")?;
        // sshd starts itself again for each connection and insists on an absolute path for that.
        let mut command = namespace.command("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(&file);
        let server = Server::start(command, Socket::Tcp, port, None)?;
        Ok(Self {
            server,
            directory,
            port,
        })
    }

    /// A command for `namespace` that logs in at `address` and runs `remote` there.
    #[must_use]
    pub fn login(&self, namespace: &Netns, address: &str, remote: &str) -> Command {
        let mut command = namespace.command("ssh");
        let key: PathBuf = self.directory.path().join("user");
        command
            .arg("-i")
            .arg(key)
            .args(["-F", "none", "-p", &self.port.to_string()])
            .args([
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "LogLevel=ERROR",
                "-l",
                "root",
                address,
                remote,
            ]);
        command
    }
}
