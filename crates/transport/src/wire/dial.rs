//! The way to a server up to the point where its protocol begins: name, connection, TLS from the first byte. A policy on
//! addresses belongs between `resolve` and `connect`: what is checked is then what is dialled.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use postroom_core::endpoint::{Endpoint, Tls};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::probe::ProbeReport;
use crate::route::Route;
use crate::wire::stream::Stream;
use crate::wire::tls::Trust;

/// How many addresses of one name are tried.
const ADDRESSES: usize = 8;

/// The head start of each address before the next one is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DialTimeouts {
    /// The resolution of the name.
    pub(crate) dns: Duration,
    /// The connection, over all addresses.
    pub(crate) tcp: Duration,
    /// The TLS handshake.
    pub(crate) tls: Duration,
}

/// Resolves, connects and, where the route says so, makes TLS from the first byte. Each step is noted in `report`, but for
/// the one that fails: its error is returned.
///
/// # Errors
/// Of the stages up to [`Stage::Tls`].
pub(crate) async fn open(
    route: &Route,
    trust: &Trust,
    timeouts: &DialTimeouts,
    report: &mut ProbeReport,
) -> Result<Stream> {
    let config = match route.tls {
        Tls::Implicit => Some(trust.config(route.authority.as_ref())?),
        Tls::StartTls | Tls::None => None,
    };
    let addresses = resolve(&route.endpoint, timeouts.dns).await?;
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    report.pass(Stage::Dns, shown.join(", "));
    let (tcp, address) = connect(addresses, timeouts.tcp).await?;
    report.pass(Stage::Tcp, address.to_string());
    let mut stream = Stream::new(tcp);
    if let Some(config) = config {
        stream.enter(Stage::Tls, timeouts.tls);
        stream.start_tls(config, &route.endpoint.host).await?;
        report.pass(Stage::Tls, stream.tls_summary().unwrap_or_default());
    }
    Ok(stream)
}

/// The addresses of a host, the two families in turn, the resolver's first choice first (RFC 8305 section 4).
async fn resolve(endpoint: &Endpoint, time: Duration) -> Result<Vec<SocketAddr>> {
    let port = endpoint.port.number();
    if let Some(ip) = endpoint.host.ip() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found: Vec<SocketAddr> = match timeout(time, lookup_host((endpoint.host.as_str(), port))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Err(Error::new(ErrorKind::Unresolved, Stage::Dns).with_source(error)),
        Err(_) => return Err(Error::new(ErrorKind::TimedOut, Stage::Dns)),
    };
    let Some(first) = found.first() else {
        return Err(Error::new(ErrorKind::Unresolved, Stage::Dns));
    };
    Ok(in_turn(first.is_ipv6(), &found))
}

fn in_turn(v6_first: bool, found: &[SocketAddr]) -> Vec<SocketAddr> {
    let (mut lead, mut other): (Vec<_>, Vec<_>) = found.iter().partition(|one| one.is_ipv6() == v6_first);
    lead.dedup();
    other.dedup();
    let mut other = other.into_iter();
    let mut all: Vec<SocketAddr> =
        lead.into_iter().flat_map(|one| [Some(one), other.next()]).flatten().collect();
    all.extend(other);
    all.truncate(ADDRESSES);
    all
}

/// The first connection that comes about.
async fn connect(addresses: Vec<SocketAddr>, time: Duration) -> Result<(TcpStream, SocketAddr)> {
    let mut waiting = addresses.into_iter();
    let mut trying = FuturesUnordered::new();
    let mut last: Option<io::Error> = None;
    let attempt = |address| async move {
        let tcp = TcpStream::connect(address).await?;
        // Commands are small and each waits for its answer.
        tcp.set_nodelay(true)?;
        Ok::<_, io::Error>((tcp, address))
    };
    let race = async {
        trying.extend(waiting.next().map(attempt));
        loop {
            tokio::select! {
                tried = trying.next() => match tried {
                    Some(Ok(connected)) => return Some(connected),
                    Some(Err(error)) => {
                        last = Some(error);
                        trying.extend(waiting.next().map(attempt));
                    }
                    None => return None,
                },
                () = sleep(HEAD_START), if waiting.len() > 0 => trying.extend(waiting.next().map(attempt)),
            }
        }
    };
    match timeout(time, race).await {
        Ok(Some(connected)) => Ok(connected),
        Ok(None) => {
            let error = Error::new(ErrorKind::Unreachable, Stage::Tcp);
            Err(match last {
                Some(cause) => error.with_source(cause),
                None => error,
            })
        }
        Err(_) => Err(Error::new(ErrorKind::TimedOut, Stage::Tcp)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn the_two_families_take_turns_from_the_resolvers_first_choice() {
        let check = |found: &[&str], want: &[&str]| {
            let parse = |list: &[&str]| -> Vec<SocketAddr> {
                list.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), 25)).collect()
            };
            let found = parse(found);
            assert_eq!(in_turn(found[0].is_ipv6(), &found), parse(want));
        };
        check(&["::1", "::2", "192.0.2.1"], &["::1", "192.0.2.1", "::2"]);
        check(&["192.0.2.1", "192.0.2.2", "::1", "::2"], &["192.0.2.1", "::1", "192.0.2.2", "::2"]);
        check(&["192.0.2.1", "192.0.2.1"], &["192.0.2.1"]);
        let many: Vec<String> = (1..=20).map(|last| format!("192.0.2.{last}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&many, &many[..ADDRESSES]);
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next() {
        let dead = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let alive = listener.local_addr().expect("an address");
        let (_, reached) = connect(vec![dead, alive], Duration::from_secs(20)).await.expect("connected");
        assert_eq!(reached, alive);
        let error = connect(vec![dead, dead], Duration::from_secs(20)).await.expect_err("nobody");
        assert_eq!((error.kind(), error.stage()), (ErrorKind::Unreachable, Stage::Tcp));
    }
}
