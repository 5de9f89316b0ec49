//! Our declarations against those of `hip-sys`.
#![allow(clippy::unwrap_used)]

use hip_sys::hiprt;
use hip_sys::hiprt::hipError_t::{self, *};

use super::sys::{Api, CAPTURE_MODE_THREAD_LOCAL, STREAM_NON_BLOCKING, Status, attribute, status};

/// Sizes of a C function's arguments.
trait Signature {
    const ARGUMENT_BYTES: &'static [usize];
}

macro_rules! signatures {
    ($(($($argument:ident)*))*) => {
        $(
            impl<R, $($argument),*> Signature for unsafe extern "C" fn($($argument),*) -> R {
                const ARGUMENT_BYTES: &'static [usize] = &[$(size_of::<$argument>()),*];
            }
        )*
    };
}
signatures! { () (A) (A B) (A B C) (A B C D) (A B C D E F G H I J K) }

/// Of a function that is named, never called, and so never linked.
fn argument_bytes<F: Signature>(_: impl FnOnce() -> F) -> &'static [usize] {
    F::ARGUMENT_BYTES
}

macro_rules! theirs {
    ($($name:ident($($argument:ty),*))*) => {
        [$((stringify!($name), argument_bytes(|| hiprt::$name as unsafe extern "C" fn($($argument),*) -> _)),)*]
    };
}

#[test]
fn functions_take_as_many_and_as_large_arguments() {
    let theirs = theirs! {
        hipInit(_) hipRuntimeGetVersion(_) hipGetDeviceCount(_) hipSetDevice(_) hipDeviceGetName(_, _, _)
        hipDeviceGetAttribute(_, _, _) hipDeviceTotalMem(_, _) hipDeviceSynchronize() hipMemGetInfo(_, _) hipMalloc(_, _)
        hipFree(_) hipHostMalloc(_, _, _) hipHostFree(_) hipMemcpyHtoDAsync(_, _, _, _) hipMemcpyDtoHAsync(_, _, _, _)
        hipModuleLoadData(_, _) hipModuleUnload(_) hipModuleGetFunction(_, _, _)
        hipModuleLaunchKernel(_, _, _, _, _, _, _, _, _, _, _) hipStreamCreateWithFlags(_, _) hipStreamDestroy(_)
        hipStreamSynchronize(_) hipStreamBeginCapture(_, _) hipStreamEndCapture(_, _)
        hipGraphInstantiateWithFlags(_, _, _) hipGraphLaunch(_, _) hipGraphDestroy(_) hipGraphExecDestroy(_)
    };
    // HIP 5.4 does not have it.
    let newer = ("hipGetDevicePropertiesR0600", &[8, 4][..]);
    for (name, ours) in Api::NAMES.iter().zip(Api::ARGUMENT_BYTES) {
        let theirs = theirs.iter().chain([&newer]).find(|(candidate, _)| candidate == name);
        assert_eq!(theirs.unwrap().1, *ours, "{name}");
    }
    assert_eq!(size_of::<Status>(), size_of::<hipError_t>());
}

#[test]
fn numbers_are_the_same() {
    use hiprt::hipDeviceAttribute_t as Attribute;
    for (ours, theirs) in [
        (attribute::MULTIPROCESSOR_COUNT, Attribute::hipDeviceAttributeMultiprocessorCount),
        (attribute::MAX_SHARED_MEMORY_PER_BLOCK, Attribute::hipDeviceAttributeMaxSharedMemoryPerBlock),
        (attribute::WARP_SIZE, Attribute::hipDeviceAttributeWarpSize),
    ] {
        assert_eq!(ours, theirs as i32, "{theirs:?}");
    }
    let thread_local = hiprt::hipStreamCaptureMode::hipStreamCaptureModeThreadLocal;
    assert_eq!(CAPTURE_MODE_THREAD_LOCAL, thread_local as i32);
    assert_eq!(STREAM_NON_BLOCKING, hiprt::hipStreamNonBlocking);
}

#[test]
fn statuses_have_the_same_names() {
    let theirs = [
        hipSuccess,
        hipErrorInvalidValue,
        hipErrorOutOfMemory,
        hipErrorNotInitialized,
        hipErrorInsufficientDriver,
        hipErrorInvalidDeviceFunction,
        hipErrorNoDevice,
        hipErrorInvalidDevice,
        hipErrorInvalidImage,
        hipErrorNoBinaryForGpu,
        hipErrorInvalidHandle,
        hipErrorNotFound,
        hipErrorIllegalAddress,
        hipErrorLaunchOutOfResources,
        hipErrorLaunchFailure,
        hipErrorNotSupported,
        hipErrorStreamCaptureUnsupported,
        hipErrorStreamCaptureInvalidated,
        hipErrorUnknown,
    ];
    let theirs = theirs.map(|status| (status as Status, format!("{status:?}")));
    assert_eq!(status::NAMES.map(|(status, name)| (status, name.to_owned())), theirs);
}
