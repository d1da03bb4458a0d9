//! The floor: a relay that passes bytes between a client and a backend and knows nothing of them: one read and one write each way,
//! no timer, no task, nothing allocated.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const EVENTS: usize = 1_024;
const READ_BYTES: usize = 64 * 1024;
const LISTENER: Token = Token(usize::MAX);

/// One side of a relayed connection.
struct Side {
    stream: TcpStream,
    /// Bytes that had no room on the way to this side.
    waiting: Vec<u8>,
}

/// `bench relay LISTEN BACKEND`.
pub(crate) fn run() -> Result<()> {
    let mut addresses = std::env::args().skip(2).map(|text| text.parse::<SocketAddr>());
    let mut next = || addresses.next().context("relay needs two addresses")?.context("not an address");
    let (listen, backend) = (next()?, next()?);
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    // Both sides of a connection: 2n is the client's, 2n + 1 the backend's.
    let mut pairs: Slab<[Side; 2]> = Slab::new();
    let mut events = Events::with_capacity(EVENTS);
    let mut bytes = vec![0; READ_BYTES];
    loop {
        match poll.poll(&mut events, None) {
            // A tracer that comes interrupts it.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, backend, &poll, &mut pairs)?;
                continue;
            }
            let (pair, side) = (event.token().0 >> 1, event.token().0 & 1);
            let Some(sides) = pairs.get_mut(pair) else { continue };
            // Whoever leaves ends it.
            let goes_on = (!event.is_writable() || sides[side].flush())
                && (!(event.is_readable() || event.is_writable()) || pass(sides, side, &mut bytes));
            if !goes_on {
                pairs.remove(pair);
            }
        }
    }
}

fn accept(listener: &TcpListener, backend: SocketAddr, poll: &Poll, pairs: &mut Slab<[Side; 2]>) -> Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let place = pairs.vacant_entry();
        let mut sides = [client, TcpStream::connect(backend)?].map(|stream| Side { stream, waiting: Vec::new() });
        for (number, side) in sides.iter_mut().enumerate() {
            side.stream.set_nodelay(true)?;
            let token = Token(place.key() << 1 | number);
            poll.registry().register(&mut side.stream, token, Interest::READABLE | Interest::WRITABLE)?;
        }
        place.insert(sides);
    }
}

/// Passes on what one side has sent, as long as the other takes it. False at the end.
fn pass(sides: &mut [Side; 2], from: usize, bytes: &mut [u8]) -> bool {
    let [client, backend] = sides;
    let (from, to) = if from == 0 { (client, backend) } else { (backend, client) };
    while to.waiting.is_empty() {
        let count = match from.stream.read(bytes) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::NotConnected,
        };
        to.waiting.extend_from_slice(&bytes[..count]);
        if !to.flush() {
            return false;
        }
        if count < bytes.len() {
            break;
        }
    }
    true
}

impl Side {
    /// Sends what waits, as far as there is room. False at the end.
    fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match self.stream.write(&self.waiting) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::NotConnected,
            }
        }
        true
    }
}
