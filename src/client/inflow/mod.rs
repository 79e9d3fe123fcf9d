//! A body that is read while it comes: what has arrived of it, in the form that is wanted, and how far ahead it is read.
//!
//! No I/O, and no thread waits here: whoever reads the connection puts in, whoever wants it takes out.
//!
//! | file | its story |
//! |---|---|
//! | `arrivals` | what has come and was not taken, and how it ends |
//! | `tape` | the last bytes of the body, for whoever takes them and for whoever is told of a failure |
//! | `ahead` | how far one stream is read ahead, and all of them together |
//! | `pace` | by when what must have come |
//! | `figures` | what a stream, and all streams of a client, have come to |

mod ahead;
mod arrivals;
mod figures;
mod pace;
mod tape;

pub use ahead::{StreamMemory, StreamSettings};
pub use arrivals::{Arrivals, DRAINED_FOR, Form, Taken};
pub use figures::{StreamCount, StreamCounts, StreamFigures, StreamTicket};
pub(super) use pace::Pace;
