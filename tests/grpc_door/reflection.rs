//! A client that knows nothing learns the services from the server itself.

use bytes::Bytes;
use penstock::wire::grpc::framed;
use penstock::wire::grpc::proto::reflection::server_reflection_request::MessageRequest;
use penstock::wire::grpc::proto::reflection::server_reflection_response::MessageResponse;
use penstock::wire::grpc::proto::reflection::{ServerReflectionRequest, ServerReflectionResponse};
use prost::Message;
use prost_types::FileDescriptorProto;

use crate::harness::{Client, Door};

fn asked(request: MessageRequest) -> Bytes {
    framed(&ServerReflectionRequest { host: "here".to_owned(), message_request: Some(request) })
}

#[test]
fn services_and_their_files_are_told_by_both_names_of_the_service() {
    let door = Door::open();
    let client = Client::open(door.address());
    for version in ["v1", "v1alpha"] {
        let mut call =
            client.begin(&format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"), &[]);
        let mut ask = |request: MessageRequest| {
            call.push(asked(request.clone()));
            let answer = ServerReflectionResponse::decode(call.next().unwrap()).unwrap();
            assert_eq!(answer.original_request.unwrap().message_request, Some(request));
            answer.message_response.unwrap()
        };
        let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new()))
        else {
            panic!("no list of services");
        };
        assert_eq!(list.service.len(), 4);
        for service in list.service {
            let asked = MessageRequest::FileContainingSymbol(service.name.clone());
            let MessageResponse::FileDescriptorResponse(files) = ask(asked) else {
                panic!("no file for {}", service.name);
            };
            let file = FileDescriptorProto::decode(files.file_descriptor_proto[0].clone()).unwrap();
            assert!(service.name.starts_with(file.package()));
        }
        let MessageResponse::ErrorResponse(error) =
            ask(MessageRequest::FileByFilename("nothing.proto".to_owned()))
        else {
            panic!("a file that is not there");
        };
        assert_eq!((error.error_code, &*error.error_message), (5, "there is no file 'nothing.proto'"));
        call.finish();
        assert_eq!(call.end().code, Some(0));
    }
}
