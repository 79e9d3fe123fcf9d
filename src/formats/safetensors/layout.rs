//! Where tensors lie behind a header: each as long as its shape says, and one behind the other without holes.

use super::header::TensorEntry;
use super::names::quoted;
use super::stored::StoredType;

/// Puts tensors into the order of their bytes, and makes sure that they are the `available` bytes, no more and no less.
pub(super) fn check(tensors: &mut [TensorEntry], available: u64) -> Result<(), String> {
    for tensor in tensors.iter() {
        check_size(tensor)?;
    }
    tensors.sort_by_key(|tensor| (tensor.begin, tensor.end));
    let mut expected = 0;
    for tensor in tensors.iter() {
        let (name, begin) = (quoted(&tensor.name), tensor.begin);
        if begin < expected {
            return Err(format!(
                "tensor {name} begins at byte {begin}, within another that ends at {expected}"
            ));
        }
        if begin > expected {
            return Err(format!("bytes {expected} to {begin}, in front of tensor {name}, belong to none"));
        }
        expected = tensor.end;
    }
    if expected > available {
        return Err(format!("its tensors end at byte {expected}, and it has {available}: it is truncated"));
    }
    if expected < available {
        return Err(format!(
            "its tensors end at byte {expected}, and it has {available}: the rest belongs to none"
        ));
    }
    Ok(())
}

fn check_size(tensor: &TensorEntry) -> Result<(), String> {
    let (name, shape) = (quoted(&tensor.name), &tensor.shape);
    let Some(length) = tensor.end.checked_sub(tensor.begin) else {
        return Err(format!(
            "tensor {name} ends at byte {}, before it begins at {}",
            tensor.end, tensor.begin
        ));
    };
    let Some(bits) = bits(tensor.dtype, shape) else {
        return Err(format!("the size of tensor {name} overflows: {shape:?} of {}", tensor.dtype.name()));
    };
    if !bits.is_multiple_of(8) {
        return Err(format!("tensor {name}, {shape:?} of {}, does not end with a byte", tensor.dtype.name()));
    }
    if length != bits / 8 {
        let dtype = tensor.dtype.name();
        return Err(format!(
            "tensor {name}, {shape:?} of {dtype}, has {length} bytes and needs {}",
            bits / 8
        ));
    }
    Ok(())
}

/// Bits that a tensor takes, where they can be counted: the dimensions that are not zero alone must not overflow, since that
/// is how arrays count their strides.
fn bits(dtype: StoredType, shape: &[usize]) -> Option<u64> {
    let multiply = |bits: u64, length: &usize| bits.checked_mul(u64::try_from((*length).max(1)).ok()?);
    let bits = shape.iter().try_fold(dtype.bits(), multiply)?;
    Some(if shape.contains(&0) { 0 } else { bits })
}
