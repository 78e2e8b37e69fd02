//! A relay between postroom and a server, which stops in the middle of what the server says when it is told to: whoever listens can't have
//! heard more. It knows no protocol, and lives as long as the process.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::outcome::Outcome;

/// How much the server may still say; no end if there is none.
type Rest = Option<usize>;

#[derive(Debug, Default)]
struct Gate {
    rest: Mutex<Rest>,
    changed: Condvar,
}

impl Gate {
    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much of so many bytes may pass, once some may.
    fn pass(&self, bytes: usize) -> usize {
        let rest = self.rest();
        let mut rest =
            self.changed.wait_while(rest, |rest| *rest == Some(0)).unwrap_or_else(PoisonError::into_inner);
        let some = rest.map_or(bytes, |rest| rest.min(bytes));
        *rest = rest.map(|rest| rest - some);
        self.changed.notify_all();
        some
    }
}

/// The relay to one address.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    gate: Arc<Gate>,
}

impl Relay {
    /// Begin to listen, on the same host.
    pub(crate) fn before(server: SocketAddr) -> Outcome<Self> {
        let failed = |error: std::io::Error| format!("no relay before {server}: {error}");
        let listener = TcpListener::bind((server.ip(), 0)).map_err(failed)?;
        let (address, gate) = (listener.local_addr().map_err(failed)?, Arc::new(Gate::default()));
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let gate = Arc::clone(&shared);
                // Whoever finds a closed connection tries again, as at a server that is down.
                std::thread::spawn(move || drop(connect(client, server, &gate)));
            }
        });
        Ok(Self { address, gate })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Let no more than so many bytes more of the server's pass.
    pub(super) fn stop_after(&self, bytes: usize) {
        *self.gate.rest() = Some(bytes);
    }

    /// Wait until they have passed, at most so long; whether they have.
    pub(super) fn has_stopped_within(&self, patience: Duration) -> bool {
        let rest = self.gate.rest();
        let waited = self.gate.changed.wait_timeout_while(rest, patience, |rest| *rest != Some(0));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Let everything pass.
    pub(super) fn go_on(&self) {
        *self.gate.rest() = None;
        self.gate.changed.notify_all();
    }
}

fn connect(client: TcpStream, server: SocketAddr, gate: &Gate) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = copy(&client, &server, |bytes| bytes);
            // A client that is dead is so for the server at once.
            let _ = server.shutdown(Shutdown::Both);
        });
        let _ = copy(&server, &client, |bytes| gate.pass(bytes));
        let _ = client.shutdown(Shutdown::Both);
    });
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, pass: impl Fn(usize) -> usize) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let mut read = match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => buffer.get(..read?).unwrap_or_default(),
        };
        if read.is_empty() {
            return Ok(());
        }
        while !read.is_empty() {
            let (now, later) = read.split_at(pass(read.len()));
            to.write_all(now)?;
            read = later;
        }
    }
}
