//! How far a tensor is from what was expected.

/// The distance of `found` from `expected`, and where it is largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Normalised mean squared error: Σ (found − expected)² / Σ expected². Infinite where exactly one of two values is
    /// finite, or where anything was found in place of all zeros.
    pub nmse: f64,
    /// Largest |found − expected| over the root mean square of `expected`.
    pub max_error: f64,
    /// Index of the largest difference.
    pub worst: usize,
    /// Value expected there.
    pub expected: f32,
    /// Value found there.
    pub found: f32,
}

impl Comparison {
    /// Compares element by element. A NaN agrees with a NaN and an infinity with the same infinity only; such elements
    /// take no part in the norm.
    ///
    /// # Panics
    /// If the lengths differ or are zero: the caller compares two results of one op.
    pub fn of(expected: &[f32], found: &[f32]) -> Self {
        assert_eq!(expected.len(), found.len(), "results of one op have one shape");
        let differences = expected.iter().zip(found).map(|(e, f)| difference(*e, *f));
        let (mut worst, mut largest, mut squared) = (0, 0.0, 0.0);
        for (i, difference) in differences.enumerate() {
            squared += difference * difference;
            if difference > largest {
                (worst, largest) = (i, difference);
            }
        }
        let power: f64 = expected.iter().filter(|e| e.is_finite()).map(|e| f64::from(*e) * f64::from(*e)).sum();
        Self {
            nmse: ratio(squared, power),
            max_error: ratio(largest, (power / expected.len() as f64).sqrt()),
            worst,
            expected: expected[worst],
            found: found[worst],
        }
    }

    /// True when both measures are within their bounds.
    pub fn is_within(&self, nmse: f64, max_error: f64) -> bool {
        self.nmse <= nmse && self.max_error <= max_error
    }
}

fn difference(expected: f32, found: f32) -> f64 {
    if expected.is_finite() && found.is_finite() {
        (f64::from(found) - f64::from(expected)).abs()
    } else if expected == found || (expected.is_nan() && found.is_nan()) {
        0.0
    } else {
        f64::INFINITY
    }
}

/// `error / norm`, with nothing over nothing being no error.
fn ratio(error: f64, norm: f64) -> f64 {
    if error == 0.0 { 0.0 } else { error / norm }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_by_hand() {
        let c = Comparison::of(&[3.0, 4.0, 0.0], &[3.0, 4.5, 0.0]);
        assert!((c.nmse - 0.25 / 25.0).abs() < 1e-15);
        assert!((c.max_error - 0.5 / (25.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!((c.worst, c.expected, c.found), (1, 4.0, 4.5));
        assert!(c.is_within(0.011, 0.2) && !c.is_within(0.009, 0.2) && !c.is_within(0.011, 0.1));
    }

    #[test]
    fn equal_tensors_have_no_error_even_if_all_zero_or_not_finite() {
        for values in [[0.0, 0.0], [f32::NAN, 1.0], [f32::NEG_INFINITY, 1.0]] {
            let c = Comparison::of(&values, &values);
            assert_eq!((c.nmse, c.max_error), (0.0, 0.0));
        }
    }

    #[test]
    fn a_value_that_is_not_finite_on_one_side_is_an_infinite_error() {
        let pairs = [(1.0, f32::NAN), (f32::NAN, 1.0), (f32::INFINITY, f32::NEG_INFINITY), (f32::NAN, f32::INFINITY)];
        for (expected, found) in pairs {
            let c = Comparison::of(&[1.0, expected], &[1.0, found]);
            assert_eq!((c.nmse, c.worst), (f64::INFINITY, 1), "{expected} against {found}");
        }
    }

    #[test]
    fn anything_in_place_of_zeros_is_an_infinite_error() {
        assert_eq!(Comparison::of(&[0.0], &[1e-30]).nmse, f64::INFINITY);
    }
}
