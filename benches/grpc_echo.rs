//! The floor that the gRPC door is measured against, and the server that clients of gRPC are: bare tonic on one thread.
//!
//! `/inference.GRPCInferenceService/ModelInfer` answers with the tensors that it is given, decoded and encoded by prost as
//! tonic's own services do; every other method answers with the bytes of the message, which nobody looks at. Takes the port
//! to listen on, or any that is free where none is given; prints it and serves until it is killed.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::{Buf, BufMut, Bytes};
use penstock::wire::grpc::proto::inference::model_infer_response::InferOutputTensor;
use penstock::wire::grpc::proto::inference::{ModelInferRequest, ModelInferResponse};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::Grpc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

type Infer = ProstCodec<ModelInferResponse, ModelInferRequest>;

async fn call(request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
    Ok(if request.uri().path() == MODEL_INFER {
        Grpc::new(Infer::default()).unary(service_fn(mirror), request).await
    } else {
        Grpc::new(Raw).unary(service_fn(echo), request).await
    })
}

async fn echo(request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    Ok(Response::new(request.into_inner()))
}

/// Every input comes back as an output of the same name.
async fn mirror(request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
    let asked = request.into_inner();
    let outputs = asked.inputs.into_iter().map(|input| InferOutputTensor {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
        parameters: input.parameters,
        contents: input.contents,
    });
    Ok(Response::new(ModelInferResponse {
        model_name: asked.model_name,
        model_version: asked.model_version,
        id: asked.id,
        outputs: outputs.collect(),
        raw_output_contents: asked.raw_input_contents,
        ..ModelInferResponse::default()
    }))
}

/// Messages are bytes.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

#[allow(clippy::print_stdout, reason = "whoever starts it reads the port there")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "0".into()).parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let incoming = incoming.with_nodelay(Some(true));
        println!("{}", incoming.local_addr()?.port());
        Server::builder().serve_with_incoming(service_fn(call), incoming).await?;
        Ok(())
    })
}
