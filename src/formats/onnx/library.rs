//! The onnxruntime library: loaded once, at run time, from where somebody installed it.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::environment::Environment;
use ort::logging::LogLevel;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

/// The oldest version of the library that will do.
pub const OLDEST: &str = "1.24";

/// How the library is got.
const INSTALL: &str = "pip install \"penstock[onnx]\"";

/// The library, once it is loaded: a process has one of it, from the first place that it was loaded from.
static LOADED: Mutex<Option<Arc<Library>>> = Mutex::new(None);

/// The onnxruntime library.
#[derive(Debug)]
pub struct Library {
    pub(super) environment: Environment,
    path: PathBuf,
}

impl Library {
    /// The library at `path`, or the one that was loaded before.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is none, it is no onnxruntime, or it is older than [`OLDEST`].
    pub fn load(path: &Path) -> Result<Arc<Self>> {
        let mut loaded = LOADED.lock();
        if let Some(library) = loaded.as_ref() {
            return Ok(Arc::clone(library));
        }
        let environment = catch_unwind(|| open(path))
            .unwrap_or_else(|_| Err(refused(path, "it is no onnxruntime library")))?;
        let library = Arc::new(Self { environment, path: path.to_owned() });
        *loaded = Some(Arc::clone(&library));
        Ok(library)
    }

    /// Where it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its makers say of it.
    pub fn build_info() -> Option<&'static str> {
        // Without a library there is nobody to ask.
        LOADED.lock().is_some().then(ort::info)
    }
}

fn open(path: &Path) -> Result<Environment> {
    if !path.is_absolute() {
        return Err(refused(path, "its path is not absolute"));
    }
    if !path.is_file() {
        return Err(refused(path, "there is no such file"));
    }
    let builder = ort::init_from(path).map_err(|error| refused(path, &reason(&error)))?;
    // What fails is told by the call that fails; the rest is for those who look for it.
    let logger = |level: LogLevel, category: &str, _: &str, place: &str, message: &str| {
        tracing::debug!(target: "penstock::onnx", ?level, category, place, "{message}");
    };
    let environment =
        builder.with_name("penstock").with_telemetry(false).with_logger(Arc::new(logger)).build();
    environment.map_err(|error| refused(path, error.message()))
}

fn reason(error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => format!("it could not be loaded: {error}"),
        ort::LoadDynamicError::MissingApi { .. } => "it is no onnxruntime library".to_owned(),
        ort::LoadDynamicError::InvalidVersionString => "it does not say its version".to_owned(),
        ort::LoadDynamicError::BadVersion { version_str, .. } => {
            format!("its version is {version_str}, and {OLDEST} or later is needed")
        }
    }
}

fn refused(path: &Path, why: &str) -> Error {
    let message = format!("the onnxruntime library '{}' cannot be used: {why} ({INSTALL})", path.display());
    Error::new(ErrorKind::Config, message)
}
