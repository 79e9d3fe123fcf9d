//! Which calls there are, by their paths.

use crate::wire::grpc::{Code, Status};

/// The service that a health check can ask for by its name, besides the models.
pub(super) const INFERENCE: &str = "inference.GRPCInferenceService";

/// A call that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    ServerLive,
    ServerReady,
    ModelReady,
    ServerMetadata,
    ModelMetadata,
    ModelInfer,
    ModelStreamInfer,
    RepositoryIndex,
    RepositoryLoad,
    RepositoryUnload,
    HealthCheck,
    HealthList,
    HealthWatch,
    Reflection,
}

/// Path and method; the most frequent first.
const METHODS: [(&str, Method); 15] = [
    ("/inference.GRPCInferenceService/ModelInfer", Method::ModelInfer),
    ("/inference.GRPCInferenceService/ModelStreamInfer", Method::ModelStreamInfer),
    ("/grpc.health.v1.Health/Check", Method::HealthCheck),
    ("/inference.GRPCInferenceService/ServerLive", Method::ServerLive),
    ("/inference.GRPCInferenceService/ServerReady", Method::ServerReady),
    ("/inference.GRPCInferenceService/ModelReady", Method::ModelReady),
    ("/inference.GRPCInferenceService/ServerMetadata", Method::ServerMetadata),
    ("/inference.GRPCInferenceService/ModelMetadata", Method::ModelMetadata),
    ("/inference.GRPCInferenceService/RepositoryIndex", Method::RepositoryIndex),
    ("/inference.GRPCInferenceService/RepositoryModelLoad", Method::RepositoryLoad),
    ("/inference.GRPCInferenceService/RepositoryModelUnload", Method::RepositoryUnload),
    ("/grpc.health.v1.Health/List", Method::HealthList),
    ("/grpc.health.v1.Health/Watch", Method::HealthWatch),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Method::Reflection),
    // The same messages by older names: what is not up to date asks for it.
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Method::Reflection),
];

impl Method {
    /// The call of a path.
    ///
    /// # Errors
    /// [`Code::Unimplemented`] for a path that is none.
    pub(super) fn of(path: &str) -> Result<Self, Status> {
        let found = METHODS.iter().find(|(known, _)| *known == path);
        found.map(|(_, method)| *method).ok_or_else(|| unknown(path))
    }

    /// True where it is answered without a key, whoever asks: probes have none.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::ServerLive | Self::ServerReady | Self::HealthCheck)
    }

    /// True where answers may be many, and so come while the call goes on.
    pub(super) fn is_stream(self) -> bool {
        matches!(self, Self::ModelStreamInfer | Self::HealthWatch | Self::Reflection)
    }
}

fn unknown(path: &str) -> Status {
    let (service, method) =
        path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or((path, ""));
    let is_known = METHODS.iter().any(|(known, _)| {
        known.strip_prefix('/').and_then(|path| path.split_once('/')).is_some_and(|(name, _)| name == service)
    });
    let message = if is_known {
        format!("service '{service}' has no method '{method}'")
    } else {
        format!("there is no service '{service}'; reflection says which there are")
    };
    Status::new(Code::Unimplemented, message)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::grpc::proto::DESCRIPTORS;

    #[test]
    fn every_method_that_is_described_is_known_and_no_other() {
        let described = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let mut paths = Vec::new();
        for file in &described.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let known = Method::of(&path).unwrap();
                    assert_eq!(known.is_stream(), method.server_streaming(), "{path}");
                    paths.push(path);
                }
            }
        }
        assert_eq!(paths.len(), METHODS.len());
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (path, message) in [
            (
                "/inference.GRPCInferenceService/Train",
                "service 'inference.GRPCInferenceService' has no method 'Train'",
            ),
            ("/a.B/C", "there is no service 'a.B'; reflection says which there are"),
            ("/", "there is no service '/'; reflection says which there are"),
        ] {
            let status = Method::of(path).unwrap_err();
            assert_eq!((status.code, &*status.message), (Code::Unimplemented, message));
        }
    }
}
