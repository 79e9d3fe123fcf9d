//! Inputs that are in memory already: which of them is which of the model's, by the rules that the wire has.

use super::fit::{check, common_count, known_input, one_input, wanted_output};
use super::request::WantedOutput;
use crate::error::Result;
use crate::tensor::TensorSpec;

/// What is to be known of an input before it is read.
#[derive(Debug, Clone)]
pub struct Given {
    /// Its name.
    pub name: String,
    /// The protocol's name of its type.
    pub datatype: &'static str,
    /// Its axes, the batch axis first.
    pub shape: Vec<usize>,
}

/// Which of what is given is each of the model's inputs, in their order, and how many rows they have.
///
/// # Errors
/// [`ErrorKind::Item`](crate::error::ErrorKind::Item), naming the input and what is wrong with it. Nothing is cast.
pub fn arranged(given: &[Given], inputs: &[TensorSpec]) -> Result<(Vec<usize>, usize)> {
    given.iter().try_for_each(|one| known_input(&one.name, inputs))?;
    let numbered: Vec<(usize, &Given)> = given.iter().enumerate().collect();
    let mut order = Vec::with_capacity(inputs.len());
    let mut shapes = Vec::with_capacity(inputs.len());
    for spec in inputs {
        let (at, found) = one_input(&numbered, &spec.name, |(_, one)| &one.name)?;
        check(spec, found.datatype, &found.shape)?;
        order.push(*at);
        shapes.push(found.shape.as_slice());
    }
    let count = common_count(shapes.into_iter())?;
    Ok((order, count))
}

/// The numbers of the outputs of those names.
///
/// # Errors
/// [`ErrorKind::Item`](crate::error::ErrorKind::Item) for one that the model has not, and one that is named twice.
pub fn outputs_of(names: &[String], outputs: &[TensorSpec]) -> Result<Vec<usize>> {
    let mut wanted: Vec<WantedOutput> = Vec::with_capacity(names.len());
    for name in names {
        let index = wanted_output(name, outputs, &wanted)?;
        wanted.push(WantedOutput { index, binary: true });
    }
    Ok(wanted.into_iter().map(|output| output.index).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str, datatype: &'static str, shape: &[usize]) -> Given {
        Given { name: name.to_owned(), datatype, shape: shape.to_vec() }
    }

    fn inputs() -> Vec<TensorSpec> {
        [("x", "float32", &[2_i64][..]), ("t", "string", &[])]
            .map(|(name, elements, axes)| TensorSpec::new(name, elements, axes).unwrap())
            .into()
    }

    #[test]
    fn inputs_are_put_in_the_order_of_the_model() {
        let all = [given("t", "BYTES", &[3]), given("x", "FP32", &[3, 2])];
        assert_eq!(arranged(&all, &inputs()).unwrap(), (vec![1, 0], 3));
        assert_eq!(outputs_of(&["t".to_owned(), "x".to_owned()], &inputs()).unwrap(), [1, 0]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let text = || given("t", "BYTES", &[3]);
        for (all, words) in [
            (vec![given("x", "FP32", &[3, 2])], "input 't' is missing"),
            (vec![text(), given("x", "FP64", &[3, 2])], "datatype FP64; the model wants FP32"),
            (vec![text(), given("x", "FP32", &[3])], "input 'x' has shape [3]"),
            (vec![text(), given("x", "FP32", &[2, 2])], "different numbers of rows"),
            (vec![given("t", "BYTES", &[0]), given("x", "FP32", &[0, 2])], "has no rows"),
            (vec![text(), given("x", "FP32", &[3, 2]), given("y", "FP32", &[3])], "there is no input 'y'"),
        ] {
            let error = arranged(&all, &inputs()).unwrap_err();
            assert!(error.message().contains(words), "{error}");
        }
        for (names, words) in [(["z", "x"], "there is no output 'z'"), (["x", "x"], "asked for twice")] {
            let error = outputs_of(&names.map(str::to_owned), &inputs()).unwrap_err();
            assert!(error.message().contains(words), "{error}");
        }
    }
}
