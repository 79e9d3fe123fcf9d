mod aims;
mod recalled;
mod shape;
