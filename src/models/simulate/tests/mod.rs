mod aims;
mod shape;
