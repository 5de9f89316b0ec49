//! Operators, one safe function each. Shapes are in the doc comments; T tokens, N heads, E experts, K experts per token.

mod attention;
mod elementwise;
mod moe;
mod products;
mod prolog;

pub(crate) use attention::{Attention, Keys};
pub(crate) use moe::{FusedGateUp, GatingRules, GroupedProduct, Routed};
pub(crate) use prolog::{KeyPart, MlaProlog};

/// Plans an operator with its first function and queues it with its second one.
///
/// `run!(stream, aclnnFoo, aclnnFooGetWorkspaceSize, a, b)` calls the first with `a, b` and two places for what it answers.
/// The expressions must be descriptors' handles that are alive, or null where the operator takes null.
macro_rules! run {
    ($stream:ident, $name:ident, $plan:ident, $($argument:expr),+ $(,)?) => {{
        let context = $stream.context.clone();
        let libraries = context.libraries();
        let both = |library: &$crate::driver::sys::opapi::OpApi| {
            Some((*library.$plan.as_ref().ok()?, *library.$name.as_ref().ok()?))
        };
        // Operators are looked for before anything is prepared; one that is gone by now answers like one that fails.
        let Some((plan, run)) = libraries.operators.iter().find_map(both) else {
            return Err(libraries.error(stringify!($name), $crate::driver::ops::NOT_THERE));
        };
        context.bind()?;
        let (mut workspace_bytes, mut executor) = (0, std::ptr::null_mut());
        // SAFETY: the arguments are live descriptors; both results go to places that outlive the call.
        let status = unsafe { plan($($argument,)+ &raw mut workspace_bytes, &raw mut executor) };
        libraries.check(stringify!($plan), status)?;
        context.counts().plans.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        $stream.queue(stringify!($name), run, workspace_bytes, executor)
    }};
}
use run;

/// The same for operators that can be repeated: those that take tensors and attributes only, whose values are the same
/// whenever their addresses and shapes are. The arguments are [`Argument`](crate::driver::arguments::Argument)s.
macro_rules! repeat {
    ($stream:ident, $name:ident, $plan:ident, $($argument:expr),+ $(,)?) => {{
        use $crate::driver::arguments::Argument as _;
        use $crate::driver::calls::Lookup;
        let context = $stream.context.clone();
        let libraries = context.libraries();
        let both = |library: &$crate::driver::sys::opapi::OpApi| {
            Some((*library.$plan.as_ref().ok()?, *library.$name.as_ref().ok()?))
        };
        let Some((plan, run)) = libraries.operators.iter().find_map(both) else {
            return Err(libraries.error(stringify!($name), $crate::driver::ops::NOT_THERE));
        };
        context.bind()?;
        let key = $stream.begin_call(run);
        $($argument.write_key(key);)+
        let found = $stream.look_up_call();
        if let Lookup::Queue(executor, workspace_bytes) = found {
            return $stream.queue_again(stringify!($name), run, workspace_bytes, executor);
        }
        let mut made = $crate::driver::descriptor::Descriptors::new(context.clone());
        let (mut workspace_bytes, mut executor) = (0, std::ptr::null_mut());
        // SAFETY: the arguments are descriptors that live in `made`, and plain values; both results go to places that
        // outlive the call.
        let status = unsafe { plan($($argument.make(&mut made)?,)+ &raw mut workspace_bytes, &raw mut executor) };
        libraries.check(stringify!($plan), status)?;
        context.counts().plans.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match found {
            Lookup::PlanToKeep => $stream.queue_and_keep(stringify!($name), run, (workspace_bytes, executor), made),
            _ => $stream.queue(stringify!($name), run, workspace_bytes, executor),
        }
    }};
}
use repeat;

/// Status of an operator that the libraries lack; none of CANN's.
const NOT_THERE: i32 = -1;
