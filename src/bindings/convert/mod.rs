//! Between Python objects and the rows of a batch.

pub(crate) mod arrays;
pub(crate) mod assemble;
pub(crate) mod items;
pub(crate) mod pricing;
pub(crate) mod results;
pub(crate) mod structure;
