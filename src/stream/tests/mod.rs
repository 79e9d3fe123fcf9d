mod coding;
mod encoding;
mod lines;
mod packing;
mod reference;
mod size;
mod sse;
