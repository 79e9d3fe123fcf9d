//! Which model will be asked for next.

mod settings;

pub use settings::{Accuracy, Because, PredictReport, PredictSettings, Prospect, Wish};
