//! Hearing of interfaces that come, go or change.

use std::{io, thread, time::Duration};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::netlink::is;

/// The kernel's group of messages about interfaces (Linux `include/uapi/linux/rtnetlink.h`,
/// `RTMGRP_LINK`).
const GROUP: u32 = 1;

/// What comes within this time after the first of several changes is heard of with it: who makes an
/// interface names it, moves it and takes it up.
const BURST: Duration = Duration::from_millis(5);

/// What the kernel says about interfaces of this process's network namespace from here on.
#[derive(Debug)]
pub struct Changes {
    /// Nothing where the kernel refuses.
    socket: Option<Socket>,
}

impl Changes {
    /// Begins to listen. Where the kernel refuses that, nothing is ever heard.
    #[must_use]
    pub fn listen() -> Self {
        let subscribed = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, GROUP))?;
            Ok(socket)
        };
        Self {
            socket: subscribed().ok(),
        }
    }

    /// Waits until something is heard, but no longer than this, and says whether it was.
    #[must_use]
    pub fn wait(&self, at_most: Duration) -> bool {
        let Some(socket) = &self.socket else {
            thread::sleep(at_most);
            return false;
        };
        let time = Timespec::try_from(at_most).ok();
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], time.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return false,
            Ok(_) => thread::sleep(BURST),
            Err(_) => {
                thread::sleep(at_most);
                return false;
            }
        }
        let mut message = Vec::with_capacity(8192);
        loop {
            message.clear();
            // What a message says is asked anew anyway; that some were lost says the same as one.
            match socket.recv(&mut message, 0) {
                Ok(_) => {}
                Err(error) if is(&error, Errno::NOBUFS) || is(&error, Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anybody_may_listen_and_whoever_cannot_hears_nothing() {
        let changes = Changes::listen();
        assert!(changes.socket.is_some());
        let deaf = Changes { socket: None };
        assert!(!deaf.wait(Duration::from_millis(1)));
    }
}
