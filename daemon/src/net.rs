//! Ports of a daemon, taken before anything else happens so that a taken one is a clear refusal.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("setting '{field}' cannot be '{address}': it must be host:port with a known host ({error})")]
    Address { field: &'static str, address: String, error: std::io::Error },
    #[error(
        "the address {address} of setting '{field}' is taken by another process: stop it or choose another port"
    )]
    Taken { field: &'static str, address: String },
    #[error("cannot listen on {address} (setting '{field}'): {error}")]
    Io { field: &'static str, address: String, error: std::io::Error },
}

/// Listens on `address`; the answer is non-blocking and comes with the address that was really taken (port 0).
pub fn bind(field: &'static str, address: &str) -> Result<(TcpListener, SocketAddr), BindError> {
    let resolved = address
        .to_socket_addrs()
        .and_then(|mut all| all.next().ok_or_else(|| std::io::Error::new(ErrorKind::NotFound, "no address")));
    let resolved =
        resolved.map_err(|error| BindError::Address { field, address: address.to_owned(), error })?;
    let listener = TcpListener::bind(resolved).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => BindError::Taken { field, address: address.to_owned() },
        _ => BindError::Io { field, address: address.to_owned(), error },
    })?;
    let io = |error| BindError::Io { field, address: address.to_owned(), error };
    listener.set_nonblocking(true).map_err(io)?;
    let taken = listener.local_addr().map_err(io)?;
    Ok((listener, taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_and_a_bad_address_are_named() {
        let (_held, address) = bind("listen", "127.0.0.1:0").expect("a free port");
        let error = bind("http", &address.to_string()).expect_err("taken").to_string();
        assert!(error.contains("taken by another process") && error.contains("'http'"), "{error}");
        let error = bind("listen", "nonsense").expect_err("no port").to_string();
        assert!(error.contains("'listen' cannot be 'nonsense'"), "{error}");
    }
}
