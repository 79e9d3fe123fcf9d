//! Wakes a task at a moment, to the microsecond where the system can.
//!
//! Timers of the runtime tick in milliseconds: at 20 000 requests a second they would send bursts of twenty, and add up to
//! a millisecond to every latency. Linux has timers that are files, which the runtime waits for as it does for sockets
//! (`timerfd_create(2)`). A thread that sleeps between requests was measured beside it: it let requests go 80 µs late in
//! the median where this takes 40, for a thread's timers have 50 µs of slack, and then it has to wake the other thread.

#[cfg(not(target_os = "linux"))]
pub(super) use coarse::Alarm;
#[cfg(target_os = "linux")]
pub(super) use precise::Alarm;

#[cfg(target_os = "linux")]
mod precise {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    use crate::error::{Error, ErrorKind, Result};

    /// A timer of the kernel, for one task.
    ///
    /// It is never read: the runtime waits for edges, each expiry is one, and to set a timer clears it.
    pub(crate) struct Alarm {
        timer: AsyncFd<OwnedFd>,
    }

    impl Alarm {
        /// Must be called on a runtime whose I/O driver is enabled.
        pub(crate) fn new() -> Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(io::Error::from);
            #[allow(
                deprecated,
                reason = "what replaces it is unsafe, for types that lie about what they own; OwnedFd does not"
            )]
            let timer = timer.and_then(|timer| AsyncFd::with_interest(timer, Interest::READABLE));
            Ok(Self { timer: timer.map_err(failed)? })
        }

        /// Waits until `moment`, or wakes too early now and then.
        pub(crate) async fn wait_until(&self, moment: Instant) -> Result<()> {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Others have a turn even where every request is late.
                tokio::task::yield_now().await;
                return Ok(());
            }
            self.set(left).map_err(failed)?;
            self.timer.readable().await.map_err(failed)?.clear_ready();
            Ok(())
        }

        fn set(&self, left: Duration) -> io::Result<()> {
            let never = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Timespec::try_from(left).map_err(io::Error::other)?;
            let once = Itimerspec { it_interval: never, it_value: value };
            timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            Ok(())
        }
    }

    fn failed(source: io::Error) -> Error {
        Error::with_source(ErrorKind::Internal, "the timer that paces arrivals failed", source)
    }
}

#[cfg(not(target_os = "linux"))]
mod coarse {
    use std::time::Instant;

    use crate::error::Result;

    /// The runtime's own timer, which ticks in milliseconds.
    pub(crate) struct Alarm;

    impl Alarm {
        #[allow(clippy::unnecessary_wraps, reason = "timers of the kernel can fail")]
        pub(crate) fn new() -> Result<Self> {
            Ok(Self)
        }

        /// Waits until `moment`.
        pub(crate) async fn wait_until(&self, moment: Instant) -> Result<()> {
            tokio::time::sleep_until(moment.into()).await;
            Ok(())
        }
    }
}
