//! Strided tensor views, such as a transposed matrix.

/// The number of elements that a view spans, from its first to its last. Overlapping elements are
/// refused: they are not independent weights, and a few bytes could claim to be any number of them.
pub(crate) fn span(shape: &[usize], strides: &[usize]) -> Result<usize, String> {
    let absurd = || format!("it is absurdly large (shape {shape:?}, strides {strides:?})");
    if shape.contains(&0) {
        // The sizes before the zero must not overflow when multiplied.
        return shape
            .iter()
            .try_fold(1_usize, |product, &size| product.checked_mul(size))
            .ok_or_else(absurd);
    }
    let mut dims: Vec<_> =
        strides.iter().copied().zip(shape.iter().copied()).filter(|dim| dim.1 > 1).collect();
    dims.sort_unstable();
    let mut span = 1_usize;
    for (stride, size) in dims {
        // Each step along this dimension must exceed the span of the smaller ones.
        if stride < span {
            return Err(format!("its elements overlap (shape {shape:?}, strides {strides:?})"));
        }
        let steps = stride.checked_mul(size - 1).and_then(|steps| steps.checked_add(span));
        span = steps.ok_or_else(absurd)?;
    }
    Ok(span)
}

/// Whether the elements are contiguous in row-major order.
pub(crate) fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    // The stride of a dimension of size 1 is irrelevant.
    shape.contains(&0)
        || shape.iter().zip(strides).rev().filter(|dim| *dim.0 > 1).all(|(&size, &stride)| {
            let fits = stride == expected;
            expected = stride.saturating_mul(size);
            fits
        })
}

/// Copies a view to row-major order. `bytes` is the view's span, `size` the bytes per element.
pub(crate) fn gather(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let elements: usize = shape.iter().product();
    let mut gathered = Vec::with_capacity(elements * size);
    let (Some((&last, outer)), Some((&last_stride, outer_strides))) =
        (shape.split_last(), strides.split_last())
    else {
        return bytes.to_vec();
    };
    let mut index = vec![0; outer.len()];
    for _ in 0..elements.checked_div(last).unwrap_or(0) {
        let start: usize =
            index.iter().zip(outer_strides).map(|(index, stride)| index * stride).sum();
        for i in 0..last {
            gathered.extend_from_slice(&bytes[(start + i * last_stride) * size..][..size]);
        }
        // Increments the multi-index, last dimension fastest.
        for (index, &size) in index.iter_mut().zip(outer).rev() {
            *index += 1;
            if *index < size {
                break;
            }
            *index = 0;
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_gathered_in_row_major_order() {
        // [[0, 1, 2], [3, 4, 5]], transposed.
        assert_eq!(gather(&[0, 1, 2, 3, 4, 5], 1, &[3, 2], &[1, 3]), [0, 3, 1, 4, 2, 5]);
        // Every second of three two-byte elements.
        assert_eq!(gather(&[0, 1, 2, 3, 4, 5], 2, &[2], &[2]), [0, 1, 4, 5]);
        // Dimensions (a, b, c) permuted to (c, a, b), sizes 2, 2, 3.
        let cube: Vec<u8> = (0..12).collect();
        let permuted = gather(&cube, 1, &[2, 2, 3], &[1, 6, 2]);
        let by_hand: Vec<u8> = (0..2)
            .flat_map(|c| (0..2).flat_map(move |a| (0..3).map(move |b| 6 * a + 2 * b + c)))
            .collect();
        assert_eq!(permuted, by_hand);
        assert_eq!(gather(&[7, 8], 2, &[], &[]), [7, 8]);
    }

    #[test]
    fn span_and_overlap() {
        assert_eq!(span(&[2, 3], &[3, 1]), Ok(6));
        assert_eq!(span(&[3, 2], &[1, 3]), Ok(6));
        assert_eq!(span(&[2, 2], &[5, 2]), Ok(8));
        assert_eq!(span(&[], &[]), Ok(1));
        assert_eq!(span(&[0, usize::MAX], &[usize::MAX, 1]), Ok(0));
        assert_eq!(span(&[1, 3], &[0, 1]), Ok(3));
        for (shape, strides) in [(&[2][..], &[0][..]), (&[3, 3], &[2, 1]), (&[usize::MAX], &[0])] {
            assert!(span(shape, strides).expect_err("overlaps").contains("overlap"));
        }
        for (shape, strides) in [
            (&[usize::MAX, 2][..], &[2, 1][..]),
            (&[3], &[usize::MAX]),
            (&[usize::MAX, 3], &[1, usize::MAX]),
            (&[usize::MAX, 3, 0], &[1, 1, 1]),
        ] {
            assert!(span(shape, strides).is_err());
        }
    }

    #[test]
    fn contiguity() {
        for (shape, strides) in [
            (&[2, 3][..], &[3, 1][..]),
            (&[], &[]),
            (&[1, 3], &[77, 1]),
            (&[3, 1], &[1, 0]),
            (&[0, 3], &[0, 0]),
        ] {
            assert!(is_contiguous(shape, strides), "{shape:?} {strides:?}");
        }
        for (shape, strides) in [(&[2, 3][..], &[1, 2][..]), (&[2], &[2]), (&[2, 1, 2], &[4, 2, 1])]
        {
            assert!(!is_contiguous(shape, strides), "{shape:?} {strides:?}");
        }
    }
}
