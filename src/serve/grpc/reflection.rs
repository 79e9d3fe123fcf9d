//! What the server says of its own services: <https://github.com/grpc/grpc/blob/master/doc/server-reflection.md>.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use tokio::sync::mpsc;

use super::closing;
use super::inquiries::decoded;
use super::message::Inbox;
use crate::serve::Service;
use crate::wire::grpc::proto::DESCRIPTORS;
use crate::wire::grpc::proto::reflection::server_reflection_request::MessageRequest as Asked;
use crate::wire::grpc::proto::reflection::server_reflection_response::MessageResponse as Told;
use crate::wire::grpc::proto::reflection::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};
use crate::wire::grpc::{Code, Status, framed};

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    // They were written by the build of this very crate.
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    set.file.iter().map(File::of).collect()
});

/// A file of descriptions.
struct File {
    name: String,
    bytes: Bytes,
    services: Vec<String>,
    /// Full names of messages.
    types: Vec<String>,
    /// Full names of enums and methods.
    others: Vec<String>,
}

impl File {
    fn of(file: &FileDescriptorProto) -> Self {
        let package = file.package();
        let mut described = Self {
            name: file.name().to_owned(),
            bytes: file.encode_to_vec().into(),
            services: Vec::new(),
            types: Vec::new(),
            others: Vec::new(),
        };
        for service in &file.service {
            let name = format!("{package}.{}", service.name());
            described.others.extend(service.method.iter().map(|method| format!("{name}.{}", method.name())));
            described.services.push(name);
        }
        described.others.extend(file.enum_type.iter().map(|each| format!("{package}.{}", each.name())));
        file.message_type.iter().for_each(|message| described.add(package, message));
        described
    }

    fn add(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        self.others.extend(message.enum_type.iter().map(|each| format!("{name}.{}", each.name())));
        self.others.extend(message.field.iter().map(|each| format!("{name}.{}", each.name())));
        message.nested_type.iter().for_each(|nested| self.add(&name, nested));
        self.types.push(name);
    }

    fn holds(&self, symbol: &str) -> bool {
        let names = [&self.services, &self.types, &self.others];
        names.iter().any(|names| names.iter().any(|name| name == symbol))
    }
}

/// Answers what a client asks, until it says that it asks no more, or the server closes.
pub(super) async fn run(
    service: &Service,
    mut inbox: Inbox,
    answers: mpsc::Sender<Bytes>,
) -> Result<(), Status> {
    let closed = service.closed();
    tokio::pin!(closed);
    loop {
        let message = tokio::select! {
            biased;
            message = inbox.next() => message?,
            () = &mut closed => return Err(closing()),
        };
        let Some(message) = message else { return Ok(()) };
        let request: ServerReflectionRequest = decoded(message)?;
        let answer = ServerReflectionResponse {
            valid_host: request.host.clone(),
            message_response: Some(told(request.message_request.as_ref())),
            original_request: Some(request),
        };
        if answers.send(framed(&answer)).await.is_err() {
            return Ok(());
        }
    }
}

fn told(asked: Option<&Asked>) -> Told {
    match asked {
        None => refusal(Code::InvalidArgument, "the request asks for nothing".to_owned()),
        Some(Asked::ListServices(_)) => {
            let services = FILES.iter().flat_map(|file| &file.services);
            let service = services.map(|name| ServiceResponse { name: name.clone() }).collect();
            Told::ListServicesResponse(ListServiceResponse { service })
        }
        Some(Asked::FileByFilename(name)) => {
            file(|file| file.name == *name).unwrap_or_else(|| not_found("file", name))
        }
        Some(Asked::FileContainingSymbol(symbol)) => {
            file(|file| file.holds(symbol)).unwrap_or_else(|| not_found("symbol", symbol))
        }
        // None of the files has extensions.
        Some(Asked::FileContainingExtension(extension)) => {
            not_found("extension of", &extension.containing_type)
        }
        Some(Asked::AllExtensionNumbersOfType(name)) => {
            if !FILES.iter().any(|file| file.types.contains(name)) {
                return not_found("type", name);
            }
            let none = ExtensionNumberResponse { base_type_name: name.clone(), extension_number: Vec::new() };
            Told::AllExtensionNumbersResponse(none)
        }
    }
}

fn file(wanted: impl Fn(&File) -> bool) -> Option<Told> {
    let file = FILES.iter().find(|file| wanted(file))?;
    Some(Told::FileDescriptorResponse(FileDescriptorResponse {
        file_descriptor_proto: vec![file.bytes.clone()],
    }))
}

fn not_found(what: &str, name: &str) -> Told {
    refusal(Code::NotFound, format!("there is no {what} '{name}'"))
}

fn refusal(code: Code, error_message: String) -> Told {
    Told::ErrorResponse(ErrorResponse { error_code: i32::from(code.number()), error_message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(told: &Told) -> Option<String> {
        let Told::FileDescriptorResponse(files) = told else { return None };
        let file = FileDescriptorProto::decode(files.file_descriptor_proto.first()?.clone()).ok()?;
        Some(file.name().to_owned())
    }

    #[test]
    fn services_types_and_methods_lead_to_their_file() {
        for (symbol, file) in [
            ("inference.GRPCInferenceService", Some("inference.proto")),
            ("inference.GRPCInferenceService.ModelInfer", Some("inference.proto")),
            ("inference.ModelInferRequest.InferInputTensor", Some("inference.proto")),
            ("grpc.health.v1.HealthCheckResponse.ServingStatus", Some("grpc/health/v1/health.proto")),
            ("grpc.reflection.v1alpha.ServerReflection", Some("grpc/reflection/v1alpha/reflection.proto")),
            ("inference.Nothing", None),
        ] {
            let told = told(Some(&Asked::FileContainingSymbol(symbol.to_owned())));
            assert_eq!(name_of(&told).as_deref(), file, "{symbol}");
            assert_eq!(matches!(told, Told::ErrorResponse(_)), file.is_none());
        }
        let by_name = told(Some(&Asked::FileByFilename("inference.proto".to_owned())));
        assert_eq!(name_of(&by_name).as_deref(), Some("inference.proto"));
    }

    #[test]
    fn every_service_is_listed() {
        let Told::ListServicesResponse(list) = told(Some(&Asked::ListServices(String::new()))) else {
            panic!("no list");
        };
        let mut names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "inference.GRPCInferenceService"
            ]
        );
    }
}
