//! Messages and services as `proto/` describes them, made by `build.rs`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "none of this is written by hand"
)]

/// `inference.proto`: the Open Inference Protocol, version 2.
pub mod inference {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

/// `grpc/health/v1/health.proto`.
pub mod health {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

/// `grpc/reflection/v1/reflection.proto`; its older namesake `v1alpha` has the same messages, by other names.
pub mod reflection {
    include!(concat!(env!("OUT_DIR"), "/grpc.reflection.v1.rs"));
}

/// The descriptions themselves: a `google.protobuf.FileDescriptorSet`.
pub static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
