//! Execution providers by name: whoever computes a graph's nodes.

use ort::ep::{
    self, ArbitrarilyConfigurableExecutionProvider as _, ExecutionProvider, ExecutionProviderDispatch,
};

use super::settings::Provider;
use crate::error::{Error, ErrorKind, Result};

/// The one that is always there.
const CPU: &str = "CPUExecutionProvider";

macro_rules! providers {
    ($($name:literal => $provider:ty;)*) => {
        /// Those that Penstock can ask for besides the CPU; whether the library has one is another matter.
        const NAMES: &[&str] = &[$($name,)*];

        fn is_there(name: &str) -> bool {
            match name {
                $($name => <$provider as ExecutionProvider>::is_available().unwrap_or(false),)*
                _ => name == CPU,
            }
        }

        fn configured(provider: &Provider) -> Option<ExecutionProviderDispatch> {
            match provider.name.as_str() {
                $($name => {
                    let mut asked = <$provider>::default();
                    for (key, value) in &provider.options {
                        asked = asked.with_arbitrary_config(key, value);
                    }
                    Some(asked.build().error_on_failure())
                })*
                _ => None,
            }
        }
    };
}

providers! {
    "CUDAExecutionProvider" => ep::CUDA;
    "TensorrtExecutionProvider" => ep::TensorRT;
    "OpenVINOExecutionProvider" => ep::OpenVINO;
    "CoreMLExecutionProvider" => ep::CoreML;
    "XnnpackExecutionProvider" => ep::XNNPACK;
}

/// What the library is told of who is to compute.
///
/// # Errors
/// [`ErrorKind::Config`] for one that is not known, or that this library does not have.
pub(super) fn asked(providers: &[Provider], arena: bool) -> Result<Vec<ExecutionProviderDispatch>> {
    let mut asked = Vec::with_capacity(providers.len() + 1);
    for provider in providers {
        if provider.name == CPU {
            if let Some((option, _)) = provider.options.first() {
                return Err(refused(format!("{CPU} has no option '{option}'")));
            }
            continue;
        }
        let Some(one) = configured(provider) else {
            let message =
                format!("'{}' is no provider that is known: {CPU}, {}", provider.name, NAMES.join(", "));
            return Err(refused(message));
        };
        if !is_there(&provider.name) {
            let there: Vec<_> =
                std::iter::once(CPU).chain(NAMES.iter().copied().filter(|name| is_there(name))).collect();
            let message =
                format!("this onnxruntime library has no '{}', only {}", provider.name, there.join(", "));
            return Err(refused(message));
        }
        asked.push(one);
    }
    asked.push(ep::CPU::default().with_arena_allocator(arena).build());
    Ok(asked)
}

fn refused(why: String) -> Error {
    Error::new(ErrorKind::Config, why)
}
