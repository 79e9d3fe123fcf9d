//! Wakes a task at a moment, to the microsecond where the system can.
//!
//! Timers of the runtime tick in milliseconds: at 20 000 requests a second they would send bursts of twenty, and add up to
//! a millisecond to every latency. Linux has timers that are files, which the runtime waits for as it does for sockets
//! (`timerfd_create(2)`). A thread that sleeps was measured beside it: it woke 50 µs late, for that is a thread's timer
//! slack, and cost 20 µs of CPU a request for going from thread to thread.

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

        /// Waits until `moment`; dropping the future loses nothing.
        pub(crate) async fn wait_until(&self, moment: Instant) -> Result<()> {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Others have a turn even where every request is late.
                tokio::task::yield_now().await;
                return Ok(());
            }
            self.set(left).map_err(failed)?;
            loop {
                let mut ready = self.timer.readable().await.map_err(failed)?;
                let rang = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0_u8; 8])?));
                if let Ok(rang) = rang {
                    return rang.map(|_| ()).map_err(failed);
                }
            }
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

        /// Waits until `moment`; dropping the future loses nothing.
        pub(crate) async fn wait_until(&self, moment: Instant) -> Result<()> {
            tokio::time::sleep_until(moment.into()).await;
            Ok(())
        }
    }
}
