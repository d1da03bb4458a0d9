//! The floor: a relay that passes bytes between a client and a backend and knows nothing of them. No proxy of this design, one read
//! and one write each way, can cost less.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// `bench relay LISTEN BACKEND`.
pub(crate) fn run() -> Result<()> {
    let mut addresses = std::env::args().skip(2).map(|text| text.parse::<SocketAddr>());
    let mut next = || addresses.next().context("relay needs two addresses")?.context("not an address");
    let (listen, backend) = (next()?, next()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (mut client, _) = listener.accept().await?;
            client.set_nodelay(true)?;
            tokio::spawn(async move {
                let Ok(mut backend) = TcpStream::connect(backend).await else { return };
                let _ = backend.set_nodelay(true);
                // Whoever leaves ends it.
                let _ = copy_bidirectional(&mut client, &mut backend).await;
            });
        }
    })
}
