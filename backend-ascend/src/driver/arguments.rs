//! Arguments of operators: what each contributes to the key of a call ([`super::calls`]), and the handle that it becomes.

use std::ffi::{CStr, c_char};

use super::AscendError;
use super::descriptor::{Descriptors, View};
use super::sys::types::{aclIntArray, aclTensor, aclTensorList};

/// Something that an operator is called with.
pub(super) trait Argument: Copy {
    /// As CANN takes it.
    type Raw;

    /// Appends what tells it from other values.
    fn write_key(self, key: &mut Vec<u64>);

    /// Makes a descriptor where it needs one.
    fn make(self, made: &mut Descriptors) -> Result<Self::Raw, AscendError>;
}

impl Argument for View {
    type Raw = *mut aclTensor;

    fn write_key(self, key: &mut Vec<u64>) {
        key.extend(self.key());
    }

    fn make(self, made: &mut Descriptors) -> Result<*mut aclTensor, AscendError> {
        made.tensor(self)
    }
}

/// What may be left out: a null pointer then.
impl<A: Argument<Raw = *mut T>, T> Argument for Option<A> {
    type Raw = *mut T;

    fn write_key(self, key: &mut Vec<u64>) {
        match self {
            Some(argument) => argument.write_key(key),
            None => key.push(u64::MAX),
        }
    }

    fn make(self, made: &mut Descriptors) -> Result<*mut T, AscendError> {
        self.map_or(Ok(std::ptr::null_mut()), |argument| argument.make(made))
    }
}

/// A list of tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<const N: usize>(pub(super) [View; N]);

impl<const N: usize> Argument for List<N> {
    type Raw = *mut aclTensorList;

    fn write_key(self, key: &mut Vec<u64>) {
        self.0.into_iter().for_each(|view| view.write_key(key));
    }

    fn make(self, made: &mut Descriptors) -> Result<*mut aclTensorList, AscendError> {
        made.list(&self.0)
    }
}

/// Arguments that are left out.
pub(super) const NO_TENSOR: Option<View> = None;
pub(super) const NO_LIST: Option<List<1>> = None;
pub(super) const NO_INTEGERS: Option<Integers<1>> = None;

/// Integers that stay what they are: operators read them when they plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Integers<const N: usize>(pub(super) [i64; N]);

impl<const N: usize> Argument for Integers<N> {
    type Raw = *mut aclIntArray;

    fn write_key(self, key: &mut Vec<u64>) {
        key.extend(self.0.map(|value| value as u64));
    }

    fn make(self, made: &mut Descriptors) -> Result<*mut aclIntArray, AscendError> {
        made.integers(&self.0)
    }
}

/// Values that go as they are.
macro_rules! plain {
    ($($type:ty: $value:ident => $key:expr,)*) => {
        $(impl Argument for $type {
            type Raw = Self;

            fn write_key(self, key: &mut Vec<u64>) {
                let $value = self;
                key.push($key);
            }

            fn make(self, _: &mut Descriptors) -> Result<Self, AscendError> {
                Ok(self)
            }
        })*
    };
}

plain! {
    i64: value => value as u64,
    i8: value => value as u64,
    bool: value => u64::from(value),
    f64: value => value.to_bits(),
    f32: value => u64::from(value.to_bits()),
}

/// A text that lives as long as the program; one text is at one address.
impl Argument for &'static CStr {
    type Raw = *mut c_char;

    fn write_key(self, key: &mut Vec<u64>) {
        key.push(self.as_ptr() as usize as u64);
    }

    fn make(self, _: &mut Descriptors) -> Result<*mut c_char, AscendError> {
        Ok(self.as_ptr().cast_mut())
    }
}
