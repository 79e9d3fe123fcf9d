//! Days of traffic in seconds: the cache on a clock that only events move.
