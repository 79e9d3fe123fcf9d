//! Several addresses of one host: who answers first wins (RFC 8305, "happy eyeballs").

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long an attempt has before the next address is tried beside it (RFC 8305, section 5: the recommended delay).
const HEAD_START: Duration = Duration::from_millis(250);

/// The addresses in the order in which to try them: the resolver's dearest family first, then by turns (section 4). Each
/// family is rotated by `turn`, so that connections spread over all addresses of a host.
pub(super) fn order(addresses: &[SocketAddr], turn: usize) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else {
        return Vec::new();
    };
    let (mut dear, mut other): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv4() == first.is_ipv4());
    for family in [&mut dear, &mut other] {
        if !family.is_empty() {
            let by = turn % family.len();
            family.rotate_left(by);
        }
    }
    let mut ordered = Vec::with_capacity(addresses.len());
    let (mut dear, mut other) = (dear.into_iter(), other.into_iter());
    while ordered.len() < addresses.len() {
        ordered.extend(dear.next());
        ordered.extend(other.next());
    }
    ordered
}

/// Connects to the addresses in their order, each with a head start, and gives the first connection that stands. Where
/// none does, the failures are in the order in which they came.
pub(super) async fn race<S, F>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> Result<S, Vec<(SocketAddr, io::Error)>>
where
    S: Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let mut failures = Vec::new();
    if let [only] = addresses {
        return connect(*only).await.map_err(|error| vec![(*only, error)]);
    }
    // Those that lose are closed with the set.
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.iter().copied();
    let mut head_start = pin!(sleep(Duration::ZERO));
    loop {
        tokio::select! {
            biased;
            Some(ended) = attempts.join_next() => match ended {
                Ok((_, Ok(stream))) => return Ok(stream),
                Ok((address, Err(error))) => {
                    failures.push((address, error));
                    head_start.set(sleep(Duration::ZERO));
                }
                // It can only have panicked, and then it is as if it had not been tried.
                Err(_) => {}
            },
            () = &mut head_start, if waiting.len() > 0 => {
                if let Some(address) = waiting.next() {
                    let attempt = connect(address);
                    attempts.spawn(async move { (address, attempt.await) });
                }
                head_start.set(sleep(HEAD_START));
            }
            else => return Err(failures),
        }
    }
}
